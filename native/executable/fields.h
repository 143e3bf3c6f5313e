// The fields of a JSON object, checked for names and types as Python's ModelSpec.from_dict checks them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "json.h"

namespace pocketglm::executable {

class Fields {
  public:
    // `code` is that of the refusals. Refuses what is no object or has fields that are not `known`.
    Fields(const Json& object, std::string where, std::string code, const std::vector<const char*>& known);

    void need(const std::vector<const char*>& names) const;
    bool has(const char* name) const;  // and it is not null
    const Json* find(const char* name) const { return object_.find(name); }

    std::int64_t integer(const char* name, std::int64_t otherwise = 0) const;
    std::int64_t integer(const char* name, std::int64_t otherwise, std::int64_t low, std::int64_t high) const;
    double number(const char* name, double otherwise = 0) const;
    bool boolean(const char* name, bool otherwise = false) const;
    std::string text(const char* name, const char* otherwise = "") const;
    // The place of the field's text among `choices`.
    int choice(const char* name, const std::vector<const char*>& choices, int otherwise = 0) const;
    // Integers from `low` to `high`.
    std::vector<std::int32_t> integers(const char* name, std::int64_t low, std::int64_t high) const;

    [[noreturn]] void fail(const std::string& problem) const;

  private:
    [[noreturn]] void wrong(const char* name, const std::string& expected) const;

    const Json& object_;
    std::string where_, code_;
};

}  // namespace pocketglm::executable
