// A request, one line of JSON, read and checked; docs/engine-protocol.md is the contract.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model.h"
#include "pocketglm.h"

namespace pocketglm::executable {

constexpr int PROTOCOL = 1;
constexpr std::size_t MOST_LINE_BYTES = 8 << 20;  // a prompt of a million tokens

enum class Command { Load, Generate, Stop, Stats, Unload, Quit };

struct GenerateOptions {
    std::vector<std::int32_t> tokens, end_tokens;
    std::int64_t max_tokens = -1;  // -1: to the end of the context
    pglm_sampling sampling{0, 0, 1, 0, 1, 0, 0};
    std::vector<std::int32_t> bias_tokens;
    std::vector<float> biases;
    bool has_seed = false, ignore_end = false;
    std::uint64_t seed = 0;
};

struct Request {
    Command command;
    std::string id;  // empty where the request has none
    LoadOptions load;
    GenerateOptions generate;
};

// Throws `Refusal` with the code "json" or "request".
Request parse_request(std::string_view line);

}  // namespace pocketglm::executable
