#include "event.h"

#include <cmath>
#include <cstdio>

namespace pocketglm::executable {

Event& Event::number(const char* name, double value) {
    char written[32];
    std::snprintf(written, sizeof written, "%.6g", std::isfinite(value) ? value : 0);
    return raw(name, written);
}

}  // namespace pocketglm::executable
