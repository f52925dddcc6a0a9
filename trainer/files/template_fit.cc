#include "trainer/files/template_fit.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "trainer/base/printable.h"
#include "trainer/files/model_card.h"

namespace plural::trainer {
namespace {

// A template as it is compared: no texts where there is none.
struct PromptTemplate {
  std::string name;
  nlohmann::json texts;
};

PromptTemplate TemplateOf(const std::string& template_json, const std::string& source_format) {
  nlohmann::json texts = nlohmann::json::parse(template_json, nullptr, /*allow_exceptions=*/false);
  if (!texts.is_object() || source_format == "text") return {};  // texts are read as they stand
  const auto name = texts.find("name");
  PromptTemplate found = {name != texts.end() && name->is_string() ? name->get<std::string>() : "", {}};
  texts.erase("name");
  texts.erase("description");
  if (!texts.empty()) found.texts = std::move(texts);
  return found;
}
PromptTemplate TemplateOf(const data::Corpus& corpus) {
  return TemplateOf(corpus.Info().template_json, corpus.Info().source_format);
}

std::string Compare(const std::string& asked, const PromptTemplate& one, const std::string& trained,
                    const PromptTemplate& other) {
  if (one.texts.is_null() || other.texts.is_null() || one.texts == other.texts) return "";
  const bool same_name = one.name == other.name;
  return Printable(asked) + " has prompts of the template '" + Printable(one.name) + "', " +
         Printable(trained) +
         (same_name ? " those of another one of this name" : " those of '" + Printable(other.name) + "'") +
         "; prepare both with the same --template, or what is asked is not what was trained";
}

}  // namespace

std::string OtherTemplate(const data::Corpus& validation, const data::Corpus& train) {
  return Compare("data.validation (" + validation.Path().string() + ")", TemplateOf(validation),
                 "data.train (" + train.Path().string() + ")", TemplateOf(train));
}

std::string OtherTemplate(const data::Corpus& corpus, const std::filesystem::path& folder) {
  const std::optional<Training> training = ReadTraining(folder);
  // Whoever was only pretrained on prompts is asked in any way.
  if (!training || training->method == "pretrain") return "";
  return Compare(corpus.Path().string(), TemplateOf(corpus), "what " + folder.string() + " was trained on",
                 TemplateOf(training->template_json, training->source_format));
}

}  // namespace plural::trainer
