// Next-token training of a model from random weights on documents (docs/methods.md 3.1).
#include "trainer/method/method.h"

namespace plural::trainer::methods {
namespace {

constexpr KeyDefault kPretrainDefaults[] = {
    {"adapter.type", "\"none\""}, {"group.responses", "0"}, {"validation.responses", "0"}};

}  // namespace

extern const Method pretrain;
constinit const Method pretrain = {
    .name = "pretrain", .defaults = kPretrainDefaults, .responses = UsedResponses::kAll};

}  // namespace plural::trainer::methods
