#include "stored_tensor.h"

#include <algorithm>

#include "refusal.h"

namespace pocketglm::executable {

namespace {

[[noreturn]] void refuse(const std::string& problem) { throw Refusal("package", problem); }

bool is_size(const Json* value) {
    return value != nullptr && value->integer() != nullptr && *value->integer() >= 0 &&
           *value->integer() < SIZE_LIMIT;
}

std::string brief(const Json* value) { return value == nullptr ? "missing" : value->brief(); }

std::int64_t integer_or(const Json& entry, const char* name, std::int64_t otherwise, bool* sound) {
    const Json* found = entry.find(name);
    if (found == nullptr) return otherwise;
    if (found->integer() == nullptr) *sound = false;
    return found->integer() == nullptr ? 0 : *found->integer();
}

bool boolean_or_false(const Json& entry, const char* name, bool* sound) {
    const Json* found = entry.find(name);
    if (found == nullptr) return false;
    if (found->boolean() == nullptr) *sound = false;
    return found->boolean() != nullptr && *found->boolean();
}

}  // namespace

StoredTensor::StoredTensor(const Json& entry, const std::string& file) {
    if (entry.members() == nullptr) refuse(file + " must be an object");
    const Json *given_name = entry.find("name"), *shape = entry.find("shape"), *place = entry.find("offset");
    if (given_name == nullptr || given_name->text() == nullptr || !is_size(place))
        refuse(file + ": a tensor without a name or with offset " + brief(place));
    name = given_name->text()->substr(0, 128);
    offset = *place->integer();
    const bool is_list = shape != nullptr && shape->items() != nullptr;
    const std::size_t axes = is_list ? shape->items()->size() : 0;
    const auto sized = [](const Json& axis) { return is_size(&axis); };
    if (axes < 1 || axes > 2 || !std::all_of(shape->items()->begin(), shape->items()->end(), sized))
        refuse(file + ": " + name + " has shape " + brief(shape));
    rows = *(*shape->items())[0].integer();
    if (axes == 1) return;
    is_linear = true;
    inputs = *(*shape->items())[1].integer();
    bool sound = entry.find("bits") != nullptr;
    bits = integer_or(entry, "bits", 0, &sound);
    group = integer_or(entry, "group", 64, &sound);
    symmetric = boolean_or_false(entry, "symmetric", &sound);
    bias = boolean_or_false(entry, "bias", &sound);
    if (!sound) refuse(file + ": " + name + " has a malformed weight format");
    if (bits != 32 && bits != 16 && bits != 8 && bits != 4)
        refuse(file + ": " + name + ": bits is " + std::to_string(bits) + ", expected 32, 16, 8 or 4");
    if (group != 32 && group != 64 && group != 128 && group != 0)
        refuse(file + ": " + name + ": group is " + std::to_string(group) + ", expected 32, 64, 128 or 0");
}

std::int64_t StoredTensor::stored_inputs() const {
    const std::int64_t multiple = !quantized() ? 1 : group == 0 ? 32 : group;
    return (inputs + multiple - 1) / multiple * multiple;
}

// Behind the header that MNN reads: the sizes as 2 or 4 bytes each, and the table of codes.
std::int64_t StoredTensor::codes_offset() const {
    if (!quantized()) return offset;
    const std::int64_t size_bytes = std::max(rows, stored_inputs()) > 0xFFFF ? 8 : 4;
    return offset + 1 + size_bytes + 1 + (std::int64_t{1} << bits);
}

std::int64_t StoredTensor::alpha_offset() const {
    return codes_offset() + rows * (stored_inputs() * bits / 8);
}

std::int64_t StoredTensor::bias_offset() const {
    if (!quantized()) return alpha_offset();
    return alpha_offset() + 2 * rows * (stored_inputs() / group_size()) * (symmetric ? 1 : 2);
}

std::int64_t StoredTensor::end() const {
    if (is_vector()) return offset + 4 * rows;
    return bias_offset() + (bias || bits == 32 ? 4 * rows : 0);
}

pglm_tensor StoredTensor::description(std::int32_t role) const {
    const auto narrow = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
    if (is_vector()) return {role, narrow(rows), 1, 32, 0, 0, 0, static_cast<std::uint64_t>(offset), 0, 0};
    return {role,
            narrow(rows),
            narrow(inputs),
            narrow(bits),
            quantized() ? narrow(group_size()) : 0,
            symmetric,
            bias,
            static_cast<std::uint64_t>(codes_offset()),
            static_cast<std::uint64_t>(alpha_offset()),
            static_cast<std::uint64_t>(bias_offset())};
}

}  // namespace pocketglm::executable
