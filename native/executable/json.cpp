#include "json.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace pocketglm::executable {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Length of the UTF-8 character at the start of `text`, 0 where there is none.
std::size_t character_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || text.size() < length) return 0;
    for (std::size_t i = 1; i < length; ++i)
        if ((byte(i) & 0xC0) != 0x80) return 0;
    // Not longer than needed, no surrogate, not beyond U+10FFFF
    if (first == 0xE0 && byte(1) < 0xA0) return 0;
    if (first == 0xED && byte(1) > 0x9F) return 0;
    if (first == 0xF0 && byte(1) < 0x90) return 0;
    if (first == 0xF4 && byte(1) > 0x8F) return 0;
    return length;
}

void append_utf8(std::string& out, std::uint32_t code) {
    const auto byte = [&](std::uint32_t value) { out.push_back(static_cast<char>(value)); };
    if (code < 0x80) return byte(code);
    if (code < 0x800) {
        byte(0xC0 | code >> 6);
    } else if (code < 0x10000) {
        byte(0xE0 | code >> 12);
        byte(0x80 | (code >> 6 & 0x3F));
    } else {
        byte(0xF0 | code >> 18);
        byte(0x80 | (code >> 12 & 0x3F));
        byte(0x80 | (code >> 6 & 0x3F));
    }
    byte(0x80 | (code & 0x3F));
}

}  // namespace

class JsonParser {
  public:
    JsonParser(std::string_view text, const JsonLimits& limits) : text_(text), limits_(limits) {}

    Json whole() {
        if (!is_utf8(text_)) fail("it is not UTF-8");
        Json json = value(0);
        skip_space();
        if (at_ < text_.size()) fail("something follows the value");
        return json;
    }

  private:
    [[noreturn]] void fail(const std::string& problem) const {
        throw JsonError(problem + " (byte " + std::to_string(at_) + ")");
    }
    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    bool take(char wanted) {
        if (peek() != wanted || at_ >= text_.size()) return false;
        ++at_;
        return true;
    }
    void skip_space() {
        while (at_ < text_.size() && std::strchr(" \t\n\r", text_[at_]) != nullptr && text_[at_] != '\0')
            ++at_;
    }
    void expect(char wanted) {
        skip_space();
        if (!take(wanted)) fail(std::string("'") + wanted + "' is missing");
    }
    void word(std::string_view expected) {
        if (text_.substr(at_, expected.size()) != expected) fail("no JSON value");
        at_ += expected.size();
    }

    Json value(int depth) {
        if (++values_ > limits_.values) fail("more than " + std::to_string(limits_.values) + " values");
        if (depth > limits_.depth) fail("nested deeper than " + std::to_string(limits_.depth));
        skip_space();
        Json json;
        switch (peek()) {
            case '{':
                json.value_ = members(depth);
                break;
            case '[':
                json.value_ = items(depth);
                break;
            case '"':
                json.value_ = string();
                break;
            case 't':
                word("true");
                json.value_ = true;
                break;
            case 'f':
                word("false");
                json.value_ = false;
                break;
            case 'n':
                word("null");
                break;
            default:
                number(json);
        }
        return json;
    }

    Json::Items items(int depth) {
        Json::Items found;
        expect('[');
        skip_space();
        if (take(']')) return found;
        do {
            found.push_back(value(depth + 1));
            skip_space();
        } while (take(','));
        expect(']');
        return found;
    }

    Json::Members members(int depth) {
        Json::Members found;
        expect('{');
        skip_space();
        if (take('}')) return found;
        do {
            skip_space();
            if (peek() != '"') fail("a name is missing");
            std::string name = string();
            expect(':');
            found.push_back({std::move(name), value(depth + 1)});
            skip_space();
        } while (take(','));
        expect('}');
        check_names(found);
        return found;
    }

    void check_names(const Json::Members& found) const {
        std::vector<std::string_view> names;
        for (const JsonMember& member : found) names.push_back(member.name);
        std::sort(names.begin(), names.end());
        const auto twice = std::adjacent_find(names.begin(), names.end());
        if (twice != names.end()) fail("the name " + json_string(twice->substr(0, 80)) + " occurs twice");
    }

    std::string string() {
        std::string found;
        ++at_;  // the quote
        while (!take('"')) {
            if (at_ >= text_.size()) fail("a string does not end");
            const char c = text_[at_++];
            if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
            if (c == '\\') {
                append_utf8(found, escaped());
            } else {
                found.push_back(c);
            }
        }
        return found;
    }

    std::uint32_t escaped() {
        static constexpr std::string_view NAMES = "\"\\/bfnrt", VALUES = "\"\\/\b\f\n\r\t";
        const char c = peek();
        ++at_;
        const std::size_t place = NAMES.find(c);
        if (place != NAMES.npos) return VALUES[place];
        if (c != 'u') fail("an unknown escape");
        const std::uint32_t first = hexadecimal();
        if (first < 0xD800 || first > 0xDFFF) return first;
        if (first > 0xDBFF || !take('\\') || !take('u')) fail("half a surrogate pair");
        const std::uint32_t second = hexadecimal();
        if (second < 0xDC00 || second > 0xDFFF) fail("half a surrogate pair");
        return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    }

    std::uint32_t hexadecimal() {
        std::uint32_t code = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            const char c = peek(), letter = static_cast<char>(c | 0x20);
            const bool is_letter = letter >= 'a' && letter <= 'f';
            if (!is_digit(c) && !is_letter) fail("four hexadecimal digits are missing");
            code = code * 16 + (is_digit(c) ? c - '0' : letter - 'a' + 10);
        }
        return code;
    }

    void digits() {
        if (!is_digit(peek())) fail("no JSON value");
        while (is_digit(peek())) ++at_;
    }

    void number(Json& json) {
        const std::size_t start = at_;
        bool whole = true;
        take('-');
        if (!take('0')) digits();
        if (take('.')) {
            whole = false;
            digits();
        }
        if (peek() == 'e' || peek() == 'E') {
            whole = false;
            ++at_;
            if (peek() == '+' || peek() == '-') ++at_;
            digits();
        }
        const std::string written(text_.substr(start, at_ - start));
        if (whole && integer(written, json)) return;
        const double value = std::strtod(written.c_str(), nullptr);
        if (!std::isfinite(value)) fail("a number is too large");
        json.value_ = value;
    }

    static bool integer(const std::string& written, Json& json) {
        errno = 0;
        const long long value = std::strtoll(written.c_str(), nullptr, 10);
        if (errno == ERANGE) return false;
        json.value_ = static_cast<std::int64_t>(value);
        return true;
    }

    std::string_view text_;
    JsonLimits limits_;
    std::size_t at_ = 0, values_ = 0;
};

Json Json::parse(std::string_view text, const JsonLimits& limits) { return JsonParser(text, limits).whole(); }

bool Json::number(double* value) const {
    if (const std::int64_t* whole = integer()) {
        *value = static_cast<double>(*whole);
        return true;
    }
    const double* real = std::get_if<double>(&value_);
    if (real != nullptr) *value = *real;
    return real != nullptr;
}

const Json* Json::find(std::string_view name) const {
    if (members() == nullptr) return nullptr;
    for (const JsonMember& member : *members())
        if (member.name == name) return &member.value;
    return nullptr;
}

std::string Json::brief() const {
    constexpr std::size_t MOST = 70;
    if (is_null()) return "null";
    if (boolean() != nullptr) return *boolean() ? "true" : "false";
    if (integer() != nullptr) return std::to_string(*integer());
    if (items() != nullptr) return "a list";
    if (members() != nullptr) return "an object";
    if (text() != nullptr) {
        std::size_t end = std::min(MOST, text()->size());
        while (end < text()->size() && ((*text())[end] & 0xC0) == 0x80) --end;  // not within a character
        return json_string(std::string_view(*text()).substr(0, end));
    }
    char written[32];
    std::snprintf(written, sizeof written, "%.9g", std::get<double>(value_));
    return written;
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t length = character_length(text);
        if (length == 0) return false;
        text.remove_prefix(length);
    }
    return true;
}

std::string json_string(std::string_view text) {
    std::string out = "\"";
    while (!text.empty()) {
        const std::size_t length = character_length(text);
        const char c = text[0];
        if (length == 0) {
            out += '?';
        } else if (c == '"' || c == '\\') {
            out += {'\\', c};
        } else if (length == 1 && (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)) {
            char written[8];
            std::snprintf(written, sizeof written, "\\u%04x", static_cast<unsigned>(c));
            out += written;
        } else {
            out += text.substr(0, length);
        }
        text.remove_prefix(std::max<std::size_t>(1, length));
    }
    return out + '"';
}

}  // namespace pocketglm::executable
