// One-to-one fine-tuning: the likelihood of one response per prompt (docs/methods.md 3.2).
#include "trainer/method/method.h"

namespace plural::trainer::methods {
namespace {

constexpr KeyDefault kOneToOneDefaults[] = {{"group.responses", "1"}, {"train.groups_per_step", "8"}};

}  // namespace

extern const Method otoft;
constinit const Method otoft = {
    .name = "otoft", .defaults = kOneToOneDefaults, .responses = UsedResponses::kFirst};

}  // namespace plural::trainer::methods
