// One line of output: a JSON object that begins with "event".
#pragma once

#include <cstdint>
#include <string>

#include "json.h"
#include "refusal.h"

namespace pocketglm::executable {

class Event {
  public:
    Event(const char* kind, const std::string& id) : line_("{\"event\":" + json_string(kind)) {
        if (!id.empty()) text("id", id);
    }

    static Event error(const Refusal& refusal, const std::string& id) {
        Event event("error", id);
        event.text("code", refusal.code).text("message", refusal.what());
        if (!refusal.hint.empty()) event.text("hint", refusal.hint);
        return event;
    }

    Event& text(const char* name, const std::string& value) { return raw(name, json_string(value)); }
    Event& integer(const char* name, std::int64_t value) { return raw(name, std::to_string(value)); }
    Event& boolean(const char* name, bool value) { return raw(name, value ? "true" : "false"); }
    Event& number(const char* name, double value);
    Event& raw(const char* name, const std::string& json) {
        line_ += "," + json_string(name) + ":" + json;
        return *this;
    }
    std::string line() const { return line_ + "}\n"; }

  private:
    std::string line_;
};

}  // namespace pocketglm::executable
