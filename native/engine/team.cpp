#include "team.h"

#include <unistd.h>

#include <map>
#include <system_error>

#if defined(__linux__)
#include <sched.h>
#endif

#include "failure.h"

namespace pocketglm {

namespace {

// Rounds of waiting (about 20 ns each) before a thread sleeps. Inside a run the others are microseconds
// away; between runs a token's sampling takes tens of microseconds. Waking a thread takes about 50 us.
constexpr int SPINS_INSIDE = 4000;
constexpr int SPINS_BETWEEN = 8000;

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb");
#endif
}

}  // namespace

// All members of a run start with the same phase: none passes its first barrier without the others.
Member::Member(Team& team, int index)
    : team_(team), index_(index), phase_(team.passed_.load(std::memory_order_acquire)) {}

int Member::count() const { return team_.count(); }

void Member::barrier() { team_.arrive(phase_++); }

int Member::next_piece(int piece) {
    return team_.next_[phase_ % 2].value.fetch_add(piece, std::memory_order_relaxed);
}

int Team::available_threads() {
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
    const unsigned known = std::thread::hardware_concurrency();
    return known == 0 ? 1 : static_cast<int>(known);
}

std::shared_ptr<Team> Team::shared(int threads) {
    static std::mutex lock;
    static std::map<int, std::weak_ptr<Team>> teams;
    const std::lock_guard<std::mutex> guard(lock);
    std::shared_ptr<Team> team = teams[threads].lock();
    if (!team || !team->usable()) {
        team = std::make_shared<Team>(threads);
        teams[threads] = team;
    }
    return team;
}

Team::Team(int threads) : process_(getpid()) {
    try {
        threads_.reserve(threads - 1);
        for (int index = 1; index < threads; ++index) {
            threads_.emplace_back([this, index] { serve(index); });
        }
    } catch (const std::system_error& error) {
        stop();
        throw Failure(PGLM_STATE, "cannot start thread " + std::to_string(threads_.size() + 1) + " of " +
                                      std::to_string(threads) + ": " + error.what());
    }
}

Team::~Team() { stop(); }

bool Team::usable() const { return getpid() == process_; }

void Team::stop() {
    if (!usable()) {  // a forked child has the handles but not the threads
        for (std::thread& thread : threads_) thread.detach();
        return;
    }
    stopping_ = true;
    generation_.fetch_add(1);
    wake();
    for (std::thread& thread : threads_) thread.join();
}

void Team::run(const std::function<void(Member&)>& work) {
    if (!usable()) {
        throw Failure(PGLM_STATE,
                      "the model was loaded before the process was forked; load it after the fork");
    }
    const std::lock_guard<std::mutex> guard(running_);
    work_ = &work;
    generation_.fetch_add(1);
    if (!threads_.empty()) wake();
    Member caller(*this, 0);
    work(caller);
    caller.barrier();
}

void Team::serve(int index) {
    for (std::uint32_t seen = 0;;) {
        wait_until([&] { return generation_.load(std::memory_order_acquire) != seen; }, SPINS_BETWEEN);
        seen = generation_.load(std::memory_order_acquire);
        if (stopping_) return;
        Member member(*this, index);
        (*work_)(member);
        member.barrier();
    }
}

void Team::arrive(std::uint32_t phase) {
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count()) {
        // Nobody uses this phase's counter any more, and nobody has got to the next but one.
        next_[phase % 2].value.store(0, std::memory_order_relaxed);
        arrived_.store(0, std::memory_order_relaxed);
        passed_.store(phase + 1);
        wake();
        return;
    }
    wait_until([&] { return passed_.load(std::memory_order_acquire) != phase; }, SPINS_INSIDE);
}

template <typename Ready>
void Team::wait_until(Ready ready, int spins) {
    for (int i = 0; i < spins; ++i) {
        if (ready()) return;
        pause();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    sleepers_.fetch_add(1);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with that of `wake`
    awake_.wait(lock, ready);
    sleepers_.fetch_sub(1);
}

// Called after the change that waiters look for: whoever counts itself among the sleepers after this
// looked sees the change before it sleeps.
void Team::wake() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (sleepers_.load() == 0) return;
    {
        const std::lock_guard<std::mutex> guard(sleep_);
    }
    awake_.notify_all();
}

}  // namespace pocketglm
