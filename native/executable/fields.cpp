#include "fields.h"

#include <algorithm>
#include <utility>

#include "refusal.h"

namespace pocketglm::executable {

namespace {

std::string listed(const std::vector<std::string>& names) {
    std::string text;
    for (std::size_t i = 0; i < names.size() && i < 4; ++i)
        text += (i == 0 ? "" : ", ") + names[i].substr(0, 80);
    return text;
}

}  // namespace

Fields::Fields(const Json& object, std::string where, std::string code, const std::vector<const char*>& known)
    : object_(object), where_(std::move(where)), code_(std::move(code)) {
    if (object.members() == nullptr) fail(where_ + " must be an object");
    std::vector<std::string> unknown;
    for (const JsonMember& member : *object.members()) {
        if (std::find(known.begin(), known.end(), member.name) == known.end()) unknown.push_back(member.name);
    }
    if (!unknown.empty()) fail(where_ + " has unknown fields: " + listed(unknown));
}

void Fields::fail(const std::string& problem) const { throw Refusal(code_, problem); }

void Fields::wrong(const char* name, const std::string& expected) const {
    fail(where_ + "." + name + " is " + object_.find(name)->brief() + ", expected " + expected);
}

void Fields::need(const std::vector<const char*>& names) const {
    std::vector<std::string> missing;
    for (const char* name : names)
        if (object_.find(name) == nullptr) missing.push_back(name);
    if (!missing.empty()) fail(where_ + " lacks: " + listed(missing));
}

bool Fields::has(const char* name) const {
    const Json* found = object_.find(name);
    return found != nullptr && !found->is_null();
}

std::int64_t Fields::integer(const char* name, std::int64_t otherwise) const {
    const Json* found = object_.find(name);
    if (found == nullptr) return otherwise;
    if (found->integer() == nullptr) wrong(name, "int");
    return *found->integer();
}

std::int64_t Fields::integer(const char* name, std::int64_t otherwise, std::int64_t low,
                             std::int64_t high) const {
    if (!has(name)) return otherwise;
    const std::int64_t value = integer(name);
    if (value < low || value > high) {
        wrong(name, "an integer from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return value;
}

double Fields::number(const char* name, double otherwise) const {
    const Json* found = object_.find(name);
    if (found == nullptr) return otherwise;
    double value = 0;
    if (!found->number(&value)) wrong(name, "float");
    return value;
}

bool Fields::boolean(const char* name, bool otherwise) const {
    const Json* found = object_.find(name);
    if (found == nullptr) return otherwise;
    if (found->boolean() == nullptr) wrong(name, "bool");
    return *found->boolean();
}

std::string Fields::text(const char* name, const char* otherwise) const {
    const Json* found = object_.find(name);
    if (found == nullptr) return otherwise;
    if (found->text() == nullptr) wrong(name, "str");
    return *found->text();
}

int Fields::choice(const char* name, const std::vector<const char*>& choices, int otherwise) const {
    const Json* found = object_.find(name);
    if (found == nullptr) return otherwise;
    std::string names;
    for (std::size_t i = 0; i < choices.size(); ++i) {
        if (found->text() != nullptr && *found->text() == choices[i]) return static_cast<int>(i);
        names += std::string(i == 0 ? "" : ", ") + choices[i];
    }
    wrong(name, "one of " + names);
}

std::vector<std::int32_t> Fields::integers(const char* name, std::int64_t low, std::int64_t high) const {
    std::vector<std::int32_t> values;
    if (!has(name)) return values;
    const Json& list = *object_.find(name);
    if (list.items() == nullptr) wrong(name, "a list of integers");
    for (const Json& item : *list.items()) {
        if (item.integer() == nullptr || *item.integer() < low || *item.integer() > high) {
            fail(where_ + "." + name + " holds " + item.brief() + ", expected integers from " +
                 std::to_string(low) + " to " + std::to_string(high));
        }
        values.push_back(static_cast<std::int32_t>(*item.integer()));
    }
    return values;
}

}  // namespace pocketglm::executable
