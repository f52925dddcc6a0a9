#include "trainer/files/model_card.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"
#include "trainer/base/version.h"
#include "trainer/files/hub_cache.h"

namespace plural::trainer {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// Every JSON text that this writes is a Python literal of the same text, too: signs stand as UTF-8.
std::string Quoted(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

// A text of a template; "" for what it does not have.
std::string TextOf(const json& prompt_template, const char* key) {
  const auto found = prompt_template.find(key);
  return found != prompt_template.end() && found->is_string() ? found->get<std::string>() : "";
}

// The labels of turns; null without any.
json Speakers(const json& prompt_template) {
  const auto found = prompt_template.find("speakers");
  return found != prompt_template.end() && found->is_object() ? *found : json();
}

// What the prompts of a corpus look like, in Markdown.
std::string PromptSection(const Training& training, const json& prompt_template) {
  const bool numbers = training.possibilities > 0;
  std::string text = "## The prompt\n\n";
  if (training.source_format == "chat") {
    text += "The chat template of this folder (`chat_template.jinja`), ended with its generation prompt.\n";
    if (numbers) {
      text +=
          "To the content of the last user message this is added, where `{k}` is the number:\n\n```json\n" +
          Quoted(TextOf(prompt_template, "number")) + "\n```\n";
    }
    return text;
  }
  if (training.source_format == "text") return text + "The beginning of a text, as it stands.\n";
  const std::string prompt = TextOf(prompt_template, numbers ? "prompt_with_number" : "prompt");
  text += "Exactly this text";
  text += training.begin_tokens.empty()
              ? ", without a begin token:\n\n"
              : ", behind the begin token " + json(training.begin_tokens).dump() + ":\n\n";
  text += "```text\n" + prompt + "\n```\n";
  if (numbers) text += "\n`{k}` is the number.";
  if (training.source_format == "targets") return text + "\n`{request}` is the question.\n";
  text += "\n`{context}` is the conversation, a turn a line; the last one is what is answered.\n";
  if (const json speakers = Speakers(prompt_template); !speakers.is_null()) {
    text += "Backwards from the last turn, turns begin with " + Quoted(TextOf(speakers, "a")) + " and " +
            Quoted(TextOf(speakers, "b")) + " in turn.\n";
  }
  return text;
}

// Python that makes `ids` from `question` and, with numbers, `k`.
std::string PromptCode(const Training& training, const json& prompt_template) {
  const bool numbers = training.possibilities > 0;
  std::string code;
  if (training.source_format == "chat") {
    const std::string number =
        numbers ? " + " + Quoted(TextOf(prompt_template, "number")) + ".replace(\"{k}\", str(k))" : "";
    return "messages = [{\"role\": \"user\", \"content\": question" + number +
           "}]\n"
           "prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)\n"
           "ids = tokenizer(prompt, add_special_tokens=False).input_ids\n";
  }
  if (training.source_format == "text") {
    code = "prompt = question\n";
  } else {
    const json speakers = Speakers(prompt_template);
    const std::string speaker = speakers.is_null() ? "" : Quoted(TextOf(speakers, "a")) + " + ";
    code = "prompt = " + Quoted(TextOf(prompt_template, numbers ? "prompt_with_number" : "prompt")) + "\n";
    if (numbers) code += "prompt = prompt.replace(\"{k}\", str(k))\n";
    const char* const content = training.source_format == "targets" ? "{request}" : "{context}";
    code += "prompt = prompt.replace(\"" + std::string(content) + "\", " + speaker + "question)\n";
  }
  const std::string begin = training.begin_tokens.empty() ? "" : json(training.begin_tokens).dump() + " + ";
  return code + "ids = " + begin + "tokenizer(prompt, add_special_tokens=False).input_ids\n";
}

// What `trained_json` says, a line per value.
std::string TrainedSection(const json& trained) {
  if (!trained.is_object() || trained.empty()) return "";
  std::string text = "\n## How it was trained\n\n";
  const auto words = [](std::string key) {
    std::replace(key.begin(), key.end(), '_', ' ');
    return key;
  };
  const auto line = [&](const std::string& key, const json& value) {
    const std::string shown = value.is_string() ? value.get<std::string>()
                                                : value.dump(-1, ' ', false, json::error_handler_t::replace);
    text += "* " + words(key) + ": `" + shown + "`\n";
  };
  for (const auto& [key, value] : trained.items()) {
    if (!value.is_object()) line(key, value);
  }
  if (const auto figures = trained.find("figures"); figures != trained.end() && figures->is_object()) {
    for (const auto& [key, value] : figures->items()) line(key, value);
  }
  return text;
}

std::string Card(const Training& training, const json& prompt_template, const std::string& base_model,
                 const std::vector<std::int64_t>& end_tokens) {
  const bool adapter = !base_model.empty();
  const auto [base, revision] = SplitRevision(base_model);
  const std::string load = Quoted(base) + (revision.empty() ? "" : ", revision=" + Quoted(revision));
  const bool numbers = training.possibilities > 0;
  const std::string ends = json(end_tokens).dump();
  const json trained = json::parse(training.trained_json, nullptr, /*allow_exceptions=*/false);
  std::string text = "---\n";
  if (trained.is_object() && !trained.value("base_license", "").empty()) {
    text += "license: " + Quoted(trained.value("base_license", "")) + "\n";
  }
  if (adapter) text += "base_model: " + Quoted(base) + "\nlibrary_name: peft\n";
  text += "tags:\n- plural\n---\n\n# " + std::string(adapter ? "An adapter" : "A model") + " of method `" +
          training.method + "`\n\nTrained with plural " + Version();
  if (adapter) text += " for the model `" + base_model + "`";
  text += ".\n";
  if (numbers) {
    const std::string last = std::to_string(training.possibilities);
    text += "Each response is asked with a possibility number from 1 to " + last +
            ": the same prompt with another\nnumber gives another answer. For n answers draw n different "
            "numbers.\n";
  }
  text += "\n    plural ask --model " + (adapter ? base_model + " --adapter THIS_FOLDER" : "THIS_FOLDER") +
          " \"What could I do with an old violin?\"\n\n" + PromptSection(training, prompt_template);
  if (!end_tokens.empty()) text += "\nA response ends with any of the tokens " + ends + ".\n";
  if (training.latents > 0) {
    return text + "\nBehind the prompt stands one of " + std::to_string(training.latents) +
           " latents (`latents.safetensors`), which other programs than plural do not\nread: ask with "
           "`plural ask` or `plural generate --latents sample`.\n";
  }
  const std::string code =
      (numbers ? "k = 1  # from 1 to " + std::to_string(training.possibilities) + "\n" : std::string()) +
      "question = \"What could I do with an old violin?\"\n" + PromptCode(training, prompt_template);
  text += "\n## transformers\n\n```python\nimport torch\n";
  if (adapter) text += "from peft import PeftModel\n";
  text +=
      "from transformers import AutoModelForCausalLM, AutoTokenizer\n\ntokenizer = "
      "AutoTokenizer.from_pretrained(\"THIS_FOLDER\")\nmodel = AutoModelForCausalLM.from_pretrained(" +
      (adapter ? load : "\"THIS_FOLDER\"") + ")\n";
  if (adapter) text += "model = PeftModel.from_pretrained(model, \"THIS_FOLDER\")\n";
  text +=
      code +
      "inputs = torch.tensor([ids])\n"
      "output = model.generate(input_ids=inputs, attention_mask=torch.ones_like(inputs), do_sample=True,\n"
      "                        top_k=0, max_new_tokens=256" +
      (end_tokens.empty() ? "" : ", eos_token_id=" + ends) +
      ")\nprint(tokenizer.decode(output[0, len(ids):], skip_special_tokens=True))\n```\n";
  text += "\n## vLLM\n\nWith `ids` as above:\n\n```python\nfrom vllm import LLM, SamplingParams\n";
  if (adapter) text += "from vllm.lora.request import LoRARequest\n";
  text += "\nllm = LLM(model=" + (adapter ? load + ", enable_lora=True" : std::string("\"THIS_FOLDER\"")) +
          (adapter ? ")  # max_lora_rank: at least r of adapter_config.json" : ")") +
          "\nsampling = SamplingParams(temperature=1.0, max_tokens=256" +
          (end_tokens.empty() ? "" : ", stop_token_ids=" + ends) +
          ")\nllm.generate({\"prompt_token_ids\": ids}, sampling" +
          (adapter ? ", lora_request=LoRARequest(\"plural\", 1, \"THIS_FOLDER\")" : "") + ")\n```\n";
  return text + TrainedSection(trained);
}

}  // namespace

std::map<std::string, std::string> CardFiles(const Training& training, const std::string& base_model,
                                             const std::vector<std::int64_t>& end_tokens) {
  const json prompt_template = json::parse(training.template_json, nullptr, /*allow_exceptions=*/false);
  if (!prompt_template.is_object() || TextOf(prompt_template, "name").empty()) return {};
  const json trained = json::parse(training.trained_json, nullptr, /*allow_exceptions=*/false);
  nlohmann::ordered_json record = {{"plural_version", Version()},
                                   {"method", training.method},
                                   {"possibilities", training.possibilities},
                                   {"latents", training.latents},
                                   {"begin_token_ids", training.begin_tokens},
                                   {"source_format", training.source_format},
                                   {"template", prompt_template},
                                   {"tokenizer_name", training.tokenizer_name},
                                   {"tokenizer_sha256", training.tokenizer_sha256}};
  if (trained.is_object()) record["trained"] = trained;
  std::map<std::string, std::string> files = {
      {kTrainingFile, record.dump(2, ' ', false, json::error_handler_t::replace) + "\n"},
      {"README.md", Card(training, prompt_template, base_model, end_tokens)}};
  if (const std::string chat = TextOf(prompt_template, "chat_template"); !chat.empty()) {
    files["chat_template.jinja"] = chat;
  }
  return files;
}

std::string LicenseOf(const fs::path& folder) {
  const fs::path card = folder / "README.md";
  if (std::error_code error; folder.empty() || !fs::is_regular_file(card, error)) return "";
  std::istringstream lines(ReadFile(card));
  std::string line;
  if (!std::getline(lines, line) || line != "---") return "";
  while (std::getline(lines, line) && line != "---") {
    constexpr std::string_view kKey = "license:";
    if (!line.starts_with(kKey)) continue;
    const std::size_t first = line.find_first_not_of(" \"'", kKey.size());
    const std::size_t last = line.find_last_not_of(" \"'\r");
    return first == std::string::npos || last < first ? "" : line.substr(first, last - first + 1);
  }
  return "";
}

std::optional<Training> ReadTraining(const fs::path& folder) {
  const fs::path path = folder / kTrainingFile;
  if (std::error_code error; !fs::is_regular_file(path, error)) return std::nullopt;
  const json record = ReadJsonFile(path);
  try {
    return Training{.method = record.at("method"),
                    .possibilities = record.at("possibilities"),
                    .latents = record.at("latents"),
                    .begin_tokens = record.at("begin_token_ids"),
                    .source_format = record.at("source_format"),
                    .template_json = record.at("template").dump(),
                    .tokenizer_name = record.at("tokenizer_name"),
                    .tokenizer_sha256 = record.at("tokenizer_sha256"),
                    .trained_json = record.contains("trained") ? record.at("trained").dump() : ""};
  } catch (const json::exception& error) {
    const std::string what = error.what();  // behind the name of its kind, in brackets
    throw ExitError(ExitCode::kBadData, "'" + path.string() + "': is not as training writes it: " +
                                            what.substr(what.find("] ") + 2) + "; train again, or remove it");
  }
}

}  // namespace plural::trainer
