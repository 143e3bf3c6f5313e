// JSON (RFC 8259), read strictly: a manifest and a request are untrusted.
//
// Stricter than most readers: UTF-8 is checked, names in an object must differ, depth and number of values
// are bounded, numbers must be finite, and half a surrogate pair is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pocketglm::executable {

class JsonError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

struct JsonLimits {
    int depth;           // of arrays and objects within one another
    std::size_t values;  // in the whole text
};

struct JsonMember;

class Json {
  public:
    using Items = std::vector<Json>;
    using Members = std::vector<JsonMember>;

    // Throws `JsonError` where `text` is not exactly one JSON value within the limits.
    static Json parse(std::string_view text, const JsonLimits& limits);

    bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
    // The value if it is of that kind, else null.
    const bool* boolean() const { return std::get_if<bool>(&value_); }
    const std::int64_t* integer() const { return std::get_if<std::int64_t>(&value_); }
    const std::string* text() const { return std::get_if<std::string>(&value_); }
    const Items* items() const { return std::get_if<Items>(&value_); }
    const Members* members() const { return std::get_if<Members>(&value_); }
    // Whether it is a number, and its value then. An integer beyond 64 bits is a number, not an integer.
    bool number(double* value) const;
    // The member called `name`, or null where there is none or this is no object.
    const Json* find(std::string_view name) const;
    // What it says, for messages: a scalar, or the kind of a larger value.
    std::string brief() const;

  private:
    friend class JsonParser;

    std::variant<std::monostate, bool, std::int64_t, double, std::string, Items, Members> value_;
};

struct JsonMember {
    std::string name;
    Json value;
};

bool is_utf8(std::string_view text);

// `text` as a JSON string, quotes included. Bytes that are not UTF-8 become question marks.
std::string json_string(std::string_view text);

}  // namespace pocketglm::executable
