#include "team.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <system_error>

#if defined(__linux__)
#include <sched.h>
#endif

#include "failure.h"

namespace pocketglm {

namespace {

// Rounds of waiting (about 20 ns each) before a thread sleeps. Inside a run the others are microseconds
// away; between runs lies Python's work for a token, or for the tokens of several answers: up to 0.7 ms.
// Waking a thread takes 50 us, and 100 to 300 us in a virtual machine whose processor has gone to sleep.
constexpr int SPINS_INSIDE = 4000;
constexpr int SPINS_BETWEEN = 50000;

constexpr int NO_CPU = -1;

int current_cpu() {
#if defined(__linux__)
    return ::sched_getcpu();
#else
    return NO_CPU;
#endif
}

std::uint64_t both(std::uint32_t high, std::uint32_t low) { return std::uint64_t{high} << 32 | low; }
std::uint32_t high(std::uint64_t both) { return static_cast<std::uint32_t>(both >> 32); }
std::uint32_t low(std::uint64_t both) { return static_cast<std::uint32_t>(both); }

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb");
#endif
}

}  // namespace

int Member::count() const { return team_.count(); }

int Member::take(int total, const Pieces& pieces, int* first) {
    std::uint64_t taken = team_.taken_.load(std::memory_order_acquire);
    for (;;) {
        *first = static_cast<int>(low(taken));
        if (high(taken) != step_ || *first >= total) return 0;
        const int count = pieces.next(total - *first, team_.count());
        if (team_.taken_.compare_exchange_weak(taken, taken + count, std::memory_order_acq_rel)) return count;
    }
}

void Member::finish(int count, int total) {
    if (team_.done_.fetch_add(count, std::memory_order_acq_rel) + count < total) return;
    team_.done_.store(0, std::memory_order_relaxed);
    team_.taken_.store(both(step_ + 1, 0));
    team_.wake();
}

void Member::barrier() {
    const auto passed = [this] { return high(team_.taken_.load(std::memory_order_acquire)) != step_; };
    team_.wait_until(passed, SPINS_INSIDE);
    ++step_;
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

Team::Team(int threads) : process_(getpid()), cpus_(threads) {
    for (std::atomic<int>& cpu : cpus_) cpu.store(NO_CPU);
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
    stopping_.store(true);
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
    first_step_ = high(taken_.load());
    const std::uint32_t open = high(run_.load()) + 1;
    cpus_[0].store(current_cpu());
    run_.store(both(open, 0));
    if (!threads_.empty()) wake();
    Member caller(*this, 0, first_step_);
    work(caller);
    run_.fetch_add(both(1, 0));  // closed: whoever is in it leaves
    wait_until([this] { return low(run_.load(std::memory_order_acquire)) == 0; }, SPINS_INSIDE);
}

void Team::serve(int index) {
    for (std::uint32_t seen = 0;;) {
        wait_until(
            [&] {
                const std::uint32_t run = high(run_.load(std::memory_order_acquire));
                return stopping_.load() || (run % 2 == 1 && run != seen);
            },
            SPINS_BETWEEN);
        if (stopping_.load()) return;
        if (!join(&seen)) continue;
        settle(index);
        Member member(*this, index, first_step_);
        (*work_)(member);
        cpus_[index].store(NO_CPU);
        leave();
    }
}

// Counts the calling thread in, if there is a run to join.
bool Team::join(std::uint32_t* seen) {
    std::uint64_t run = run_.load(std::memory_order_acquire);
    while (high(run) % 2 == 1 && high(run) != *seen) {
        if (run_.compare_exchange_weak(run, run + 1, std::memory_order_acq_rel)) {
            *seen = high(run);
            return true;
        }
    }
    return false;
}

// A member that finds itself on the CPU of another one moves to a CPU without any, if it may use one.
void Team::settle(int index) {
#if defined(__linux__)
    const int mine = current_cpu();
    const bool shared = std::any_of(cpus_.begin(), cpus_.end(),
                                    [mine](const std::atomic<int>& cpu) { return cpu.load() == mine; });
    cpu_set_t allowed;
    if (shared && ::sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        cpu_set_t others = allowed;
        for (const std::atomic<int>& cpu : cpus_) {
            if (const int taken = cpu.load(); taken >= 0) CPU_CLR(taken, &others);
        }
        // Bound for a moment, which moves it, then free again.
        if (CPU_COUNT(&others) > 0 && ::sched_setaffinity(0, sizeof others, &others) == 0) {
            (void)::sched_setaffinity(0, sizeof allowed, &allowed);
        }
    }
#endif
    cpus_[index].store(current_cpu());
}

void Team::leave() {
    const std::uint64_t before = run_.fetch_sub(1);
    if (high(before) % 2 == 0 && low(before) == 1) wake();
}

template <typename Ready>
void Team::wait_until(Ready ready, int spins) {
    for (int i = 0; i < spins; ++i) {
        if (ready()) return;
        pause();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    sleepers_.fetch_add(1);
    awake_.wait(lock, ready);
    sleepers_.fetch_sub(1);
}

// Called after the change that waiters look for. Both sides write the number of sleepers: whoever counts
// itself in after this has looked at it sees the change before it sleeps.
void Team::wake() {
    if (sleepers_.fetch_add(0) == 0) return;
    {
        const std::lock_guard<std::mutex> guard(sleep_);
    }
    awake_.notify_all();
}

}  // namespace pocketglm
