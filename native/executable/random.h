// NumPy's Generator(PCG64(seed)).random(), so that a seed gives here what it gives in Python.
#pragma once

#include <cstdint>

namespace pocketglm::executable {

// O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random Number
// Generation", 2014: 128 bits of state, output XSL-RR. Seeded through NumPy's SeedSequence, which is
// O'Neill's seed_seq_fe with 128 bits.
class Random {
  public:
    explicit Random(std::uint64_t seed);

    // From [0, 1), with 53 random bits.
    double uniform();

  private:
    __extension__ typedef unsigned __int128 Wide;

    void step();

    Wide state_ = 0, increment_;
};

// A seed nobody can foresee.
std::uint64_t fresh_seed();

}  // namespace pocketglm::executable
