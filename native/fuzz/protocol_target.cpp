// Fuzz target: whatever lines come in, each is answered by events that are lines of JSON.
//
// A line's package "P" stands for the sound package that POCKETGLM_FUZZ_PACKAGE names.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "event.h"
#include "json.h"
#include "request.h"
#include "service.h"

namespace {

using pocketglm::executable::Command;
using pocketglm::executable::Event;
using pocketglm::executable::Job;
using pocketglm::executable::Json;
using pocketglm::executable::Refusal;
using pocketglm::executable::Service;

constexpr pocketglm::executable::JsonLimits LIMITS{4, 1000};

// Dies where an event is not one line of JSON.
void check_event(const std::string& line) {
    const bool one_line = !line.empty() && line.find('\n') == line.size() - 1;
    const Json event = Json::parse(line, LIMITS);
    if (!one_line || event.find("event") == nullptr) std::abort();
}

void take_line(Service& service, std::string_view line) {
    Job job;
    try {
        job.request = pocketglm::executable::parse_request(line);
    } catch (const Refusal& refusal) {
        return check_event(Event::error(refusal, "").line());
    }
    auto& load = job.request.load;
    const char* package = std::getenv("POCKETGLM_FUZZ_PACKAGE");
    if (load.package == "P" && package != nullptr) load.package = package;
    load.threads = std::min(load.threads, 2);
    service.execute(job);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Service service(check_event);
    std::string_view rest(reinterpret_cast<const char*>(data), size);
    while (!rest.empty()) {
        const std::size_t end = std::min(rest.find('\n'), rest.size());
        take_line(service, rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    return 0;
}
