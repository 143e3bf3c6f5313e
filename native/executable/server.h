// Lines in, lines out: one thread reads requests, another executes them, so that a stop acts at once.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "service.h"

namespace pocketglm::executable {

class Server {
  public:
    // Descriptors that are read from and written to.
    Server(int input, int output);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // Returns at `quit`, or when all requests before the end of the input are done, or at once where
    // nobody reads the output any more.
    void run();

  private:
    static constexpr std::size_t MOST_WAITING = 64;

    void read_requests();
    bool wait_for_input();
    void take_line(std::string_view line);
    void take(std::shared_ptr<Job> job);
    void stop(const std::string& id);
    void execute_jobs();
    void finish(bool at_once);
    void write(const std::string& line);

    const int input_, output_;
    int wake_[2] = {-1, -1};  // a pipe: the executing thread ends the wait for input
    Service service_;
    bool quit_ = false;  // of the reading thread

    std::mutex lock_;
    std::condition_variable changed_;
    std::deque<std::shared_ptr<Job>> waiting_;
    std::shared_ptr<Job> running_;
    bool finishing_ = false;

    std::mutex writing_;
    bool broken_ = false;
};

}  // namespace pocketglm::executable
