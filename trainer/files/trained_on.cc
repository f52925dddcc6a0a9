#include "trainer/files/trained_on.h"

#include <nlohmann/json.hpp>

#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"
#include "trainer/base/printable.h"

namespace plural::trainer {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFileName = "plural.json";

// A template as it is compared: "" in both where there is none.
struct PromptTemplate {
  std::string name;
  std::string sha256;
};

PromptTemplate TemplateOf(const data::Corpus& corpus) {
  const data::CorpusInfo& info = corpus.Info();
  nlohmann::json spec = nlohmann::json::parse(info.template_json, nullptr, false);
  if (!spec.is_object()) return {};  // the text side writes objects; others have no text to compare
  spec.erase("name");
  spec.erase("description");
  if (spec.empty() || info.source_format == "text") return {};
  return {info.template_name,
          data::Sha256OfBytes(spec.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))};
}

std::string Compare(const std::string& asked, const PromptTemplate& one, const std::string& trained,
                    const PromptTemplate& other) {
  if (one.sha256.empty() || other.sha256.empty() || one.sha256 == other.sha256) return "";
  const bool same_name = one.name == other.name;
  return Printable(asked) + " has prompts of the template '" + Printable(one.name) + "', " +
         Printable(trained) +
         (same_name ? " those of another one of this name" : " those of '" + Printable(other.name) + "'") +
         "; prepare both with the same --template, or what is asked is not what was trained";
}

std::string Text(const nlohmann::json& values, const char* key, const std::string& where) {
  const auto found = values.find(key);
  if (found != values.end() && found->is_string()) return found->get<std::string>();
  throw ExitError(ExitCode::kBadData, where + ": 'trained_on." + key +
                                          "' is not a string; remove the file, which only serves a warning");
}

}  // namespace

std::string TrainedOnJson(const data::Corpus& corpus) {
  const PromptTemplate made_with = TemplateOf(corpus);
  if (made_with.sha256.empty()) return "";
  const nlohmann::json record = {{"trained_on",
                                  {{"corpus", corpus.Path().filename().string()},
                                   {"corpus_sha256", corpus.Info().sha256},
                                   {"template_name", made_with.name},
                                   {"template_sha256", made_with.sha256}}}};
  return record.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void WriteTrainedOn(const std::string& trained_on, const fs::path& folder) {
  if (!trained_on.empty()) WriteFileDurably(folder / kFileName, trained_on);
}

std::string ReadTrainedOn(const fs::path& folder) {
  std::error_code error;
  return fs::is_regular_file(folder / kFileName, error) ? ReadFile(folder / kFileName) : "";
}

std::string OtherTemplate(const data::Corpus& validation, const data::Corpus& train) {
  return Compare("data.validation (" + validation.Path().string() + ")", TemplateOf(validation),
                 "data.train (" + train.Path().string() + ")", TemplateOf(train));
}

std::string OtherTemplate(const data::Corpus& corpus, const fs::path& folder) {
  const std::string text = ReadTrainedOn(folder);
  if (text.empty()) return "";
  const std::string where = "'" + (folder / kFileName).string() + "'";
  const nlohmann::json record = ParseJson(text, where);
  const auto found = record.is_object() ? record.find("trained_on") : record.end();
  if (found == record.end() || !found->is_object()) return "";
  return Compare(corpus.Path().string(), TemplateOf(corpus), "what " + folder.string() + " was trained on",
                 {Text(*found, "template_name", where), Text(*found, "template_sha256", where)});
}

}  // namespace plural::trainer
