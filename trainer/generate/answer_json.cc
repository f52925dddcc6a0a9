#include "trainer/generate/answer_json.h"

#include <nlohmann/json.hpp>

namespace plural::trainer {
namespace {

nlohmann::json ResponseJson(const GeneratedResponse& response, const data::Corpus* vocabulary) {
  nlohmann::json item = {{"index", response.index},          {"possibility", response.possibility},
                         {"latent", response.latent},        {"tokens", response.tokens},
                         {"logprob_nats", response.logprob},  // null where it is not known
                         {"finished", response.finished},    {"steps", response.steps},
                         {"seconds", response.seconds}};
  if (response.text) {
    item["text"] = *response.text;
  } else if (vocabulary != nullptr) {
    item["text"] = vocabulary->Decode(response.tokens);
  }
  if (response.score) item["score"] = *response.score;
  if (response.rating) item["rating"] = *response.rating;
  return item;
}

}  // namespace

nlohmann::json AnswerJson(const GeneratedPrompt& answer, const data::Corpus* vocabulary) {
  nlohmann::json line = {{"responses", nlohmann::json::array()},
                         {"decode_steps", answer.decode_steps},
                         {"token_forwards", answer.token_forwards},
                         {"seconds", answer.seconds}};
  for (const GeneratedResponse& response : answer.responses) {
    line["responses"].push_back(ResponseJson(response, vocabulary));
  }
  if (answer.short_by) line["short_by"] = *answer.short_by;
  return line;
}

}  // namespace plural::trainer
