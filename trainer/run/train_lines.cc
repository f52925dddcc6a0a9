#include "trainer/run/train_lines.h"

#include "trainer/method/latent_figures.h"

namespace plural::trainer {
namespace {

// What says whether the latents of cvf are alive.
MetricsLine LatentsLine(const LatentSums& sums, const Recipe& recipe) {
  const LatentFigures figures = FiguresOfLatents(sums);
  MetricsLine line;
  line["used_latents"] = MetricsNumber(figures.used_latents);
  line["information_nats"] = MetricsNumber(figures.information_nats);
  if (recipe.cvf.estimator == LatentEstimator::kExact) {
    line["latent_nll_spread_nats"] = MetricsNumber(figures.latent_nll_spread_nats);
  }
  return line;
}

}  // namespace

MetricsLine StepLine(const Recipe& recipe, const StepFigures& figures, std::int64_t step, std::int64_t epoch,
                     double seconds, double data_wait_seconds) {
  MetricsLine line;
  line["event"] = "step";
  line["step"] = step;
  line["epoch"] = epoch;
  line["loss"] = MetricsNumber(figures.loss);
  line["likelihood"] = MetricsNumber(figures.likelihood);
  line["unlikelihood"] = MetricsNumber(figures.unlikelihood);
  if (recipe.method == data::Method::kCvf) {
    line["bow"] = MetricsNumber(figures.bow);
    line.update(LatentsLine(figures.groups.latents, recipe));
  }
  line["grad_norm"] = MetricsNumber(figures.grad_norm);
  line["lr"] = figures.lr;
  line["groups"] = figures.groups.groups;
  line["rows"] = figures.rows;
  line["sequence_tokens"] = figures.sequence_tokens;
  line["seconds"] = seconds;
  line["data_wait_seconds"] = data_wait_seconds;
  line["unpenalised_groups"] = figures.groups.unpenalised_groups;
  if (figures.recomputed_passes > 0) line["recomputed_passes"] = figures.recomputed_passes;
  return line;
}

MetricsLine PassLine(const Recipe& recipe, const Position& position) {
  const PassSums& pass = position.pass;
  const auto groups = static_cast<double>(pass.groups);
  MetricsLine line;
  line["event"] = "pass";
  line["step"] = position.step;
  line["epoch"] = position.epoch;
  line["groups"] = pass.groups;
  line["loss"] = MetricsNumber(pass.loss / groups);
  line["unpenalised_groups"] = pass.unpenalised_groups;
  if (recipe.method == data::Method::kCvf) {
    line["bow"] = MetricsNumber(pass.latents.bow / groups);
    line.update(LatentsLine(pass.latents, recipe));
  }
  if (recipe.method == data::Method::kDistributionMatching) {
    line["kl_nats"] = MetricsNumber(pass.kl_nats / groups);
    line["entropy_nats"] = MetricsNumber(pass.entropy_nats / groups);
    line["target_mass"] = MetricsNumber(pass.target_mass / groups);
    line["cross_entropy_nats"] = MetricsNumber(pass.cross_entropy_nats / groups);
    line["target_entropy_nats"] = MetricsNumber(pass.target_entropy_nats / groups);
    line["stopped_early"] = position.stopped_early;
  }
  return line;
}

}  // namespace plural::trainer
