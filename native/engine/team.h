// A team of threads that runs one function together, with barriers and shared work inside.
//
// A forward pass is one run: the threads meet at barriers between its steps and take pieces of each step
// as they get to them, so that a thread that the system interrupts delays the others little. Threads
// spin briefly where they wait, since steps take microseconds, and then sleep.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace pocketglm {

class Team;

// One thread's part in a run.
class Member {
  public:
    Member(Team& team, int index);

    int index() const { return index_; }
    int count() const;
    // Waits for all members. What they wrote before it can be read after it.
    void barrier();
    // Takes pieces of [0, total) until nothing is left: body(first, last). Between two barriers there
    // may be one `share`, the same in all members.
    template <typename Body>
    void share(int total, int piece, Body body) {
        for (int first = next_piece(piece); first < total; first = next_piece(piece)) {
            body(first, first + piece < total ? first + piece : total);
        }
    }

  private:
    int next_piece(int piece);

    Team& team_;
    int index_;
    std::uint32_t phase_;  // barriers this team has passed in all its runs
};

class Team {
  public:
    // A team of `threads`, the caller of `run` included. Teams of one size are shared while in use.
    static std::shared_ptr<Team> shared(int threads);
    // How many threads the process may run at once.
    static int available_threads();

    explicit Team(int threads);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int count() const { return static_cast<int>(threads_.size()) + 1; }
    // Calls work(member) in every thread and returns when all are done. `work` must not throw. Throws
    // `Failure` in a child process of a fork, which has none of the threads.
    void run(const std::function<void(Member&)>& work);
    bool usable() const;

  private:
    friend class Member;

    void serve(int index);
    void stop();
    void arrive(std::uint32_t phase);
    template <typename Ready>
    void wait_until(Ready ready, int spins);
    void wake();

    std::vector<std::thread> threads_;
    pid_t process_;
    std::mutex running_;  // one run at a time
    const std::function<void(Member&)>* work_ = nullptr;
    bool stopping_ = false;

    // On cache lines of their own: the threads wait on one while others write the next.
    alignas(64) std::atomic<std::uint32_t> generation_{0};  // of runs
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<std::uint32_t> passed_{0};  // barriers of all runs
    // The next piece of the step before barrier k stands in next_[k % 2]; the barrier's last arrival clears
    // it for the step after the next one.
    struct alignas(64) Counter {
        std::atomic<int> value{0};
    };
    Counter next_[2];

    std::mutex sleep_;
    std::condition_variable awake_;
    std::atomic<int> sleepers_{0};
};

}  // namespace pocketglm
