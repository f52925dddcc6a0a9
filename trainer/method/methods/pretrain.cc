// Next-token training on documents: a model from nothing (docs/methods.md 3.1).
#include "trainer/method/method.h"

namespace plural::trainer::methods {
namespace {

data::LabelledGroup LabelDocument(const data::Group& group, int used, const data::LabelSettings& settings,
                                  std::int64_t /*epoch*/) {
  return data::Positives(group, data::WithoutNumbers(used), settings.normalization);
}

constexpr KeyDefault kDefaults[] = {
    {"adapter.type", "\"none\""}, {"group.responses", "0"}, {"validation.responses", "0"}};

}  // namespace

extern const Method pretrain;
constinit const Method pretrain = {
    .name = "pretrain", .defaults = kDefaults, .responses = UsedResponses::kAll, .label = LabelDocument};

}  // namespace plural::trainer::methods
