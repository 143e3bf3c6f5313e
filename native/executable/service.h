// Executes requests one after the other on the one model there is, and says what happens as events.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "event.h"
#include "model.h"
#include "request.h"

namespace pocketglm::executable {

struct Job {
    Request request;
    std::atomic<bool> stopped{false};  // by another thread: the answer ends before its next token
};

class Service {
  public:
    using Output = std::function<void(const std::string& line)>;

    explicit Service(Output output) : output_(std::move(output)) {}

    // Says who speaks.
    void greet();
    // Throws nothing: whatever goes wrong becomes an error event.
    void execute(Job& job) noexcept;

  private:
    struct Answer;

    void perform(Job& job);
    void load(const Request& request);
    void generate(Job& job);
    void stats(const std::string& id);
    void report(const std::string& id, const Answer& answer);
    void say(const Event& event) { output_(event.line()); }
    Model& loaded();

    Output output_;
    std::unique_ptr<Model> model_;
    double prefill_rate_ = 0, decode_rate_ = 0;  // tokens per second of the last answer
};

}  // namespace pocketglm::executable
