#include "server.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>
#include <vector>

namespace pocketglm::executable {

namespace {

constexpr std::size_t READ_AT_ONCE = 1 << 16;

}  // namespace

Server::Server(int input, int output)
    : input_(input), output_(output), service_([this](const std::string& line) { write(line); }) {
    if (::pipe(wake_) != 0) throw Refusal("internal", "no pipe can be made");
    for (const int end : wake_) ::fcntl(end, F_SETFD, FD_CLOEXEC);
}

Server::~Server() {
    for (const int end : wake_) ::close(end);
}

void Server::run() {
    service_.greet();
    std::thread executor([this] { execute_jobs(); });
    try {
        read_requests();
    } catch (const std::exception& error) {
        write(Event::error(Refusal("internal", error.what()), "").line());
    }
    finish(quit_);
    executor.join();
}

// False at the end.
bool Server::wait_for_input() {
    pollfd waits[] = {{input_, POLLIN, 0}, {wake_[0], POLLIN, 0}};
    while (::poll(waits, 2, -1) < 0)
        if (errno != EINTR) return false;
    return waits[1].revents == 0;
}

void Server::read_requests() {
    std::string line;
    bool too_long = false;
    std::vector<char> bytes(READ_AT_ONCE);
    while (!quit_ && wait_for_input()) {
        const ssize_t count = ::read(input_, bytes.data(), bytes.size());
        if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (count <= 0) break;
        std::string_view rest(bytes.data(), static_cast<std::size_t>(count));
        while (!rest.empty() && !quit_) {
            const std::size_t end = rest.find('\n');
            const std::string_view part = rest.substr(0, end);
            too_long = too_long || line.size() + part.size() > MOST_LINE_BYTES;
            if (!too_long) line += part;
            rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
            if (end == rest.npos) continue;
            if (too_long) {
                const std::string most = std::to_string(MOST_LINE_BYTES);
                write(Event::error(Refusal("line", "a line is longer than " + most + " bytes"), "").line());
            } else {
                take_line(line);
            }
            line.clear();
            too_long = false;
        }
    }
    if (!quit_ && !line.empty()) take_line(line);
}

void Server::take_line(std::string_view line) {
    if (line.find_first_not_of(" \t\r") == line.npos) return;
    auto job = std::make_shared<Job>();
    try {
        job->request = parse_request(line);
    } catch (const Refusal& refusal) {
        return write(Event::error(refusal, "").line());
    } catch (const std::bad_alloc&) {
        return write(Event::error(Refusal("memory", "out of memory for the request"), "").line());
    }
    if (job->request.command == Command::Stop) return stop(job->request.id);
    if (job->request.command == Command::Quit) {
        quit_ = true;
        return;
    }
    take(std::move(job));
}

void Server::take(std::shared_ptr<Job> job) {
    {
        const std::lock_guard<std::mutex> guard(lock_);
        if (waiting_.size() < MOST_WAITING) {
            waiting_.push_back(job);
            job = nullptr;
        }
    }
    changed_.notify_all();
    if (job == nullptr) return;
    const std::string most = std::to_string(MOST_WAITING);
    write(Event::error(Refusal("busy", most + " requests wait already", "wait for answers"), job->request.id)
              .line());
}

// Answers with that id, or all where it is empty, end before their next token.
void Server::stop(const std::string& id) {
    int count = 0;
    const auto tell = [&](const std::shared_ptr<Job>& job) {
        const Request& request = job->request;
        if (request.command != Command::Generate || (!id.empty() && request.id != id)) return;
        job->stopped = true;
        ++count;
    };
    {
        const std::lock_guard<std::mutex> guard(lock_);
        if (running_) tell(running_);
        std::for_each(waiting_.begin(), waiting_.end(), tell);
    }
    write(Event("stopping", id).integer("answers", count).line());
}

void Server::execute_jobs() {
    for (;;) {
        {
            std::unique_lock<std::mutex> lock(lock_);
            running_ = nullptr;
            changed_.wait(lock, [this] { return finishing_ || !waiting_.empty(); });
            if (waiting_.empty()) return;
            running_ = std::move(waiting_.front());
            waiting_.pop_front();
        }
        service_.execute(*running_);
    }
}

// No more requests come. `at_once`: those that wait are dropped, and a running answer ends.
void Server::finish(bool at_once) {
    {
        const std::lock_guard<std::mutex> guard(lock_);
        finishing_ = true;
        if (at_once) waiting_.clear();
        if (at_once && running_) running_->stopped = true;
    }
    changed_.notify_all();
}

void Server::write(const std::string& line) {
    const std::lock_guard<std::mutex> guard(writing_);
    for (std::size_t done = 0; done < line.size() && !broken_;) {
        const ssize_t count = ::write(output_, line.data() + done, line.size() - done);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && errno == EAGAIN) {
            pollfd wait{output_, POLLOUT, 0};
            (void)::poll(&wait, 1, -1);
            continue;
        }
        broken_ = count <= 0;
        if (count > 0) done += static_cast<std::size_t>(count);
    }
    if (!broken_) return;
    finish(true);  // nobody reads what is said
    (void)!::write(wake_[1], "x", 1);
}

}  // namespace pocketglm::executable
