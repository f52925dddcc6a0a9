// GEM: cross-entropy at a temperature below 1, whose gradient is smaller at tokens that are likely
// already, so that the answers stay more even than with plain likelihood (docs/methods.md 3.7;
// arXiv 2408.16673, linear form).
//
// The loss of an edge is sum_i q_i (log p_i - log p_y) with q = softmax(z / b) held fixed, b =
// loss.temperature; its gradient in the logits is q - onehot(y). As log softmax(z / b) = z / b -
// lse(z / b) and H(q) = lse(z / b) - q.z / b, the loss is -b (log q_y + H(q)), and the gradient of
// its first term alone is the same.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include "trainer/method/method.h"
#include "trainer/method/objective.h"

namespace plural::trainer::methods {
namespace {

constexpr std::string_view kGemTemperature = "loss.temperature";
constexpr OwnKey kGemKeys[] = {
    {.name = kGemTemperature,
     .low = 0.0,
     .high = 1.0,
     .low_open = true,
     .otherwise = 0.7,
     .meaning = "temperature b of the tempered cross-entropy; 1: plain likelihood"}};

double GemTemperature(const MethodSettings& settings) { return settings.Own(kGemTemperature); }

constexpr std::string_view kGemTerms[] = {"likelihood"};

std::vector<at::Tensor> GemLoss(const EdgeValues& edges, const MethodSettings& settings) {
  const at::Tensor value_E = edges.tempered_log_p_E + edges.tempered_entropy_E;
  return {(edges.likelihood_E * value_E).sum() * -GemTemperature(settings)};
}

}  // namespace

extern const Method gem;
constinit const Method gem = {
    .name = "gem", .keys = kGemKeys, .terms = kGemTerms, .edge_loss = GemLoss, .temperature = GemTemperature};

}  // namespace plural::trainer::methods
