// What the engine throws inside, and what the C interface turns into a status.
#pragma once

#include <stdexcept>
#include <string>

#include "pocketglm.h"

namespace pocketglm {

class Failure : public std::runtime_error {
  public:
    Failure(pglm_status status, const std::string& message) : std::runtime_error(message), status(status) {}

    const pglm_status status;
};

inline void require(bool condition, const std::string& message) {
    if (!condition) throw Failure(PGLM_INVALID, message);
}

}  // namespace pocketglm
