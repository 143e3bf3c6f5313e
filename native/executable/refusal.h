// What goes wrong in the executable: becomes an `error` event, and nothing else.
#pragma once

#include <stdexcept>
#include <string>

namespace pocketglm::executable {

class Refusal : public std::runtime_error {
  public:
    Refusal(std::string code, const std::string& message, std::string hint = "")
        : std::runtime_error(message), code(std::move(code)), hint(std::move(hint)) {}

    std::string code;  // the table in docs/engine-protocol.md
    std::string hint;
};

}  // namespace pocketglm::executable
