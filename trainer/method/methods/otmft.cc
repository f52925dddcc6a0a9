// One-to-many fine-tuning: the likelihood of N responses per prompt (docs/methods.md 3.3).
#include "trainer/method/method.h"

namespace plural::trainer::methods {

extern const Method otmft;
constinit const Method otmft = {.name = "otmft"};

}  // namespace plural::trainer::methods
