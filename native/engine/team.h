// A team of threads that runs one function together, with shared work and barriers inside.
//
// A forward pass is one run. Its threads take pieces of each step as they get to them, and go on when
// all pieces of the step are done: a thread that the system has interrupted holds the others up only
// while it holds a piece, and skips what was done without it. Threads spin briefly where they wait, since
// steps take microseconds, and then sleep. None is bound to a CPU, but one that wakes on the CPU of another
// moves away: beside a busy background process Linux leaves both there, at half the speed, for seconds.
#pragma once

#include <sys/types.h>

#include <algorithm>
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

// How a step is divided. Pieces of one size, or, where `least` is smaller, ones that get smaller towards the
// end of the step, so that all threads end it together: multiples of `least` but for the last.
struct Pieces {
    int most, least;

    Pieces(int all) : most(all), least(all) {}
    Pieces(int first, int last) : most(first), least(last) {}
    // Of the next piece, where `left` are left for `threads`.
    int next(int left, int threads) const {
        const int part = left / (2 * threads) / least * least;
        return std::min(left, std::clamp(part, least, most));
    }
};

// One thread's part in a run. All members call `share` and `barrier` in the same order, in turns.
class Member {
  public:
    Member(Team& team, int index, std::uint32_t step) : team_(team), index_(index), step_(step) {}

    int index() const { return index_; }
    int count() const;
    // Takes pieces of [0, total), total > 0, until nothing is left: body(first, last).
    template <typename Body>
    void share(int total, Pieces pieces, Body body) {
        int first = 0;
        while (const int count = take(total, pieces, &first)) {
            body(first, first + count);
            finish(count, total);
        }
    }
    // Waits until the step that was shared before is done. What it wrote can be read after it.
    void barrier();

  private:
    int take(int total, const Pieces& pieces, int* first);  // how many, 0 at the end
    void finish(int count, int total);

    Team& team_;
    int index_;
    std::uint32_t step_;
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
    // Calls work(member) in the caller and in every other thread that is there in time, and returns when
    // all are done. `work` must not throw, and must end with a barrier. Throws `Failure` in a child
    // process of a fork, which has none of the threads.
    void run(const std::function<void(Member&)>& work);
    bool usable() const;

  private:
    friend class Member;

    void serve(int index);
    bool join(std::uint32_t* seen);
    void settle(int index);
    void leave();
    void stop();
    template <typename Ready>
    void wait_until(Ready ready, int spins);
    void wake();

    std::vector<std::thread> threads_;
    pid_t process_;
    std::mutex running_;  // one run at a time
    const std::function<void(Member&)>* work_ = nullptr;
    std::uint32_t first_step_ = 0;  // of the run

    // Two numbers in one word: a change of the first makes claims on the second void.
    // The run, odd while it is open for members to join, and how many of them are in it.
    alignas(64) std::atomic<std::uint64_t> run_{0};
    // The step at hand, counted over all runs, and how much of it is taken.
    alignas(64) std::atomic<std::uint64_t> taken_{0};
    alignas(64) std::atomic<int> done_{0};  // of the step at hand

    std::vector<std::atomic<int>> cpus_;  // where each member runs, -1 outside of runs

    std::mutex sleep_;
    std::condition_variable awake_;
    std::atomic<int> sleepers_{0};
    std::atomic<bool> stopping_{false};
};

}  // namespace pocketglm
