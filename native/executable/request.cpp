#include "request.h"

#include <cstdlib>
#include <limits>

#include "fields.h"
#include "refusal.h"

namespace pocketglm::executable {

namespace {

constexpr JsonLimits LIMITS{8, 2'000'000};
constexpr std::size_t MOST_ID_BYTES = 200;
constexpr std::int64_t NO_LIMIT = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t MOST_TOKEN = std::numeric_limits<std::int32_t>::max();

const std::vector<const char*> COMMANDS{"load", "generate", "stop", "stats", "unload", "quit"};

const std::vector<const char*>& fields_of(Command command) {
    static const std::vector<const char*> load{"command", "id",     "package", "threads",
                                               "kv",      "memory", "isa",     "context"};
    static const std::vector<const char*> generate{
        "command",    "id",         "tokens", "end_tokens",         "max_tokens",       "temperature",
        "top_k",      "top_p",      "min_p",  "repetition_penalty", "presence_penalty", "frequency_penalty",
        "logit_bias", "ignore_end", "seed"};
    static const std::vector<const char*> others{"command", "id"};
    return command == Command::Load ? load : command == Command::Generate ? generate : others;
}

LoadOptions load_options(const Fields& fields) {
    fields.need({"package"});
    LoadOptions options;
    options.package = fields.text("package");
    options.threads = static_cast<std::int32_t>(fields.integer("threads", 0, 0, 1024));
    options.kv_type = fields.choice("kv", {"float32", "float16", "int8"}, PGLM_KV_FLOAT16);
    options.memory = static_cast<std::uint64_t>(fields.integer("memory", 0, 1, NO_LIMIT));
    options.isa = fields.text("isa");
    options.context = fields.integer("context", 0, 1, NO_LIMIT);
    return options;
}

void read_biases(const Fields& fields, GenerateOptions& options) {
    if (!fields.has("logit_bias")) return;
    const Json& biases = *fields.find("logit_bias");
    if (biases.members() == nullptr) fields.fail("request.logit_bias must be an object");
    for (const JsonMember& bias : *biases.members()) {
        char* end = nullptr;
        const bool is_number = !bias.name.empty() && bias.name[0] >= '0' && bias.name[0] <= '9';
        const long long token = is_number ? std::strtoll(bias.name.c_str(), &end, 10) : -1;
        double value = 0;
        if (!is_number || *end != '\0' || token > MOST_TOKEN || !bias.value.number(&value))
            fields.fail("request.logit_bias must give numbers by token id");
        options.bias_tokens.push_back(static_cast<std::int32_t>(token));
        options.biases.push_back(static_cast<float>(value));
    }
}

GenerateOptions generate_options(const Fields& fields) {
    fields.need({"tokens"});
    GenerateOptions options;
    options.tokens = fields.integers("tokens", 0, MOST_TOKEN);
    if (options.tokens.empty()) fields.fail("request.tokens is empty");
    options.end_tokens = fields.integers("end_tokens", 0, MOST_TOKEN);
    options.max_tokens = fields.integer("max_tokens", -1, 0, NO_LIMIT);
    options.sampling = {fields.number("temperature", 0),
                        fields.integer("top_k", 0, 0, NO_LIMIT),
                        fields.number("top_p", 1),
                        fields.number("min_p", 0),
                        fields.number("repetition_penalty", 1),
                        fields.number("presence_penalty", 0),
                        fields.number("frequency_penalty", 0)};
    options.ignore_end = fields.boolean("ignore_end");
    options.has_seed = fields.has("seed");
    options.seed = static_cast<std::uint64_t>(fields.integer("seed", 0, 0, NO_LIMIT));
    read_biases(fields, options);
    return options;
}

}  // namespace

Request parse_request(std::string_view line) {
    const auto parsed = [&] {
        try {
            return Json::parse(line, LIMITS);
        } catch (const JsonError& error) {
            throw Refusal("json", std::string("the line is not JSON: ") + error.what(),
                          "send one JSON object a line");
        }
    };
    const Json json = parsed();
    if (json.members() == nullptr) throw Refusal("request", "a request must be an object");
    Request request{};
    const Json *id = json.find("id"), *command = json.find("command");
    if (command == nullptr) throw Refusal("request", "request lacks: command");
    for (std::size_t i = 0; i < COMMANDS.size(); ++i) {
        if (command->text() == nullptr || *command->text() != COMMANDS[i]) continue;
        request.command = static_cast<Command>(i);
        const Fields fields(json, "request", "request", fields_of(request.command));
        if (id != nullptr) request.id = fields.text("id");
        if (request.id.size() > MOST_ID_BYTES) fields.fail("request.id is longer than 200 bytes");
        if (request.command == Command::Load) request.load = load_options(fields);
        if (request.command == Command::Generate) request.generate = generate_options(fields);
        return request;
    }
    throw Refusal("request", "request.command is " + command->brief() +
                                 ", expected one of load, generate, stop, stats, unload, quit");
}

}  // namespace pocketglm::executable
