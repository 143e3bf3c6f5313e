#include "random.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <exception>
#include <random>

namespace pocketglm::executable {

namespace {

constexpr std::size_t POOL = 4, WORDS = 8;

// The hash of SeedSequence: its constant changes with every use.
class Hash {
  public:
    Hash(std::uint32_t constant, std::uint32_t multiplier) : constant_(constant), multiplier_(multiplier) {}

    std::uint32_t operator()(std::uint32_t value) {
        value ^= constant_;
        constant_ *= multiplier_;
        value *= constant_;
        return value ^ value >> 16;
    }

  private:
    std::uint32_t constant_, multiplier_;
};

std::uint32_t mix(std::uint32_t x, std::uint32_t y) {
    const std::uint32_t mixed = 0xca01f9ddU * x - 0x4973f715U * y;
    return mixed ^ mixed >> 16;
}

// What SeedSequence(seed).generate_state(8) gives.
std::array<std::uint32_t, WORDS> seed_words(std::uint64_t seed) {
    Hash into(0x43b0d7e5U, 0x931e8875U), out_of(0x8b51f9ddU, 0x58f38dedU);
    const std::array<std::uint32_t, POOL> entropy{static_cast<std::uint32_t>(seed),
                                                  static_cast<std::uint32_t>(seed >> 32), 0, 0};
    std::array<std::uint32_t, POOL> pool;
    for (std::size_t i = 0; i < POOL; ++i) pool[i] = into(entropy[i]);
    for (std::size_t from = 0; from < POOL; ++from)
        for (std::size_t to = 0; to < POOL; ++to)
            if (from != to) pool[to] = mix(pool[to], into(pool[from]));
    std::array<std::uint32_t, WORDS> words;
    for (std::size_t i = 0; i < WORDS; ++i) words[i] = out_of(pool[i % POOL]);
    return words;
}

}  // namespace

Random::Random(std::uint64_t seed) {
    const std::array<std::uint32_t, WORDS> words = seed_words(seed);
    const auto long_word = [&](std::size_t i) {
        return static_cast<Wide>(words[2 * i + 1]) << 32 | words[2 * i];
    };
    increment_ = (long_word(2) << 64 | long_word(3)) << 1 | 1;
    step();
    state_ += long_word(0) << 64 | long_word(1);
    step();
}

void Random::step() {
    const Wide multiplier = static_cast<Wide>(0x2360ed051fc65da4ULL) << 64 | 0x4385df649fccf645ULL;
    state_ = state_ * multiplier + increment_;
}

double Random::uniform() {
    step();
    const std::uint64_t folded =
        static_cast<std::uint64_t>(state_ >> 64) ^ static_cast<std::uint64_t>(state_);
    const unsigned turn = static_cast<unsigned>(state_ >> 122);
    const std::uint64_t word = folded >> turn | folded << (-turn & 63U);
    return static_cast<double>(word >> 11) * 0x1p-53;
}

std::uint64_t fresh_seed() {
    try {
        std::random_device device;
        return static_cast<std::uint64_t>(device()) << 32 | device();
    } catch (const std::exception&) {  // a system without a source of randomness
        return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    }
}

}  // namespace pocketglm::executable
