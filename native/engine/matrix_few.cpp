// More rows than the kernels of matrix_rows.cpp take, and no more than one tile: every weight is used for one
// tile only, so a panel is transposed one vector of each channel's codes at a time, between the dot products
// with the vectors before, and what is transposed stays packed and in the first-level cache.
#include "matrix.h"
#include "matrix_panel.h"
#include "outliers.h"

namespace pocketglm::POCKETGLM_ISA {

namespace {

// A panel's codes, transposed a span at a time: one vector of every channel. That takes as many steps as a
// span has units, which are STEP_BYTES of every channel; the steps are taken one by one, each with the dot
// products of a unit of the span before: shuffles and dot products need different parts of a core.
class Spans {
  public:
    typedef Octets Unit[PANEL_VECTORS];      // [channel][STEP_BYTES]
    static constexpr int PHASE = WIDTH / 4;  // steps of a kind, one after the other

    // The rows of a panel, `bytes` of each; transposes the first span.
    void begin(const std::uint8_t* const* rows, unsigned bytes) {
        rows_ = rows;
        bytes_ = bytes;
        at_ = 0;
        for (unsigned unit = 0; unit < WIDTH; unit += PHASE) phase(unit, [](int) {});
    }

    // Units from `unit` on, whose span is transposed.
    const Unit* units(unsigned unit) const { return units_ + unit % UNITS; }

    // body(i) for the units i of a phase, of which `unit` is the first, and as many steps for the next span.
    template <typename Body>
    inline void phase(unsigned unit, const Body& body) {
        static_assert(TILE_ROWS <= ROWS_AT_ONCE || 2 * PANEL_VECTORS * PHASE == WIDTH,
                      "as many steps as units");
        const unsigned v = unit / (2 * PHASE) % PANEL_VECTORS;
        if (unit / PHASE % 2 == 1) {
            Unit* to = units_ + at_ / STEP_BYTES % UNITS;
            for (int i = 0; i < PHASE; ++i) {
                place(i, to, v);
                body(i);
            }
            if (v == PANEL_VECTORS - 1) at_ += VECTOR_BYTES;
        } else if (__builtin_expect(at_ + VECTOR_BYTES <= bytes_, 1)) {
            const std::uint8_t* const* rows = rows_ + v * WIDTH;
            const std::size_t at = at_;
            for (int i = 0; i < PHASE; ++i, rows += 4) {
                take(i, rows, at);
                body(i);
            }
        } else {
            take_last(rows_ + v * WIDTH);
            for (int i = 0; i < PHASE; ++i) body(i);
        }
    }

  private:
    // Two spans: what `Upcoming` has fetched comes from the second-level cache in time, and the first panel
    // of a range, for which nothing was fetched, comes from memory a little later.
    static constexpr int FETCH_AHEAD = 2 * VECTOR_BYTES;
    // Spans that the units of one block can be spread over, and the one being transposed, in a power of two.
    static constexpr int UNITS = LONGEST_BLOCK / STEP_BYTES > WIDTH ? 4 * WIDTH : 2 * WIDTH;

    // Four channels' vectors, transposed within every four of their lanes.
    inline void take(int four, const std::uint8_t* const* rows, std::size_t at) {
        Ints lanes[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            __builtin_prefetch(rows[i] + at + FETCH_AHEAD);
            lanes[i] = (Ints)load_octets(rows[i] + at);
        }
        put(lanes, four);
    }

    // All channels' last vectors, which are not whole, if there are any.
    [[gnu::noinline]] void take_last(const std::uint8_t* const* rows) {
        for (int four = 0; four < PHASE && at_ < bytes_; ++four, rows += 4) {
            Ints lanes[4];
            for (int i = 0; i < 4; ++i) lanes[i] = (Ints)load_octets_part(rows[i] + at_, bytes_ - at_);
            put(lanes, four);
        }
    }

    inline void put(Ints (&lanes)[4], int four) {
        transpose_within(lanes);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) taken_[i][four] = lanes[i];
    }

    inline void place(int step, Unit* to, unsigned v) {
        constexpr int LANES = 4 / PHASE;  // of four, in one step
#pragma GCC unroll 2
        for (int i = LANES * step; i < LANES * (step + 1); ++i) {
            Ints fours[PHASE];
#pragma GCC unroll 4
            for (int four = 0; four < PHASE; ++four) fours[four] = taken_[i][four];
            transpose_across(fours);
#pragma GCC unroll 4
            for (int four = 0; four < PHASE; ++four) to[4 * four + i][v] = (Octets)fours[four];
        }
    }

    const std::uint8_t* const* rows_;
    unsigned bytes_, at_;
    Ints taken_[4][PHASE];
    alignas(ALIGNMENT) Unit units_[UNITS];
};

// sums[r][v] += the products of one unit of codes, STEP_BYTES of every channel, with a tile's rows. `x` is
// where the unit's first step stands in a run of the first row.
template <int BITS, int R>
inline void add_unit(const Octets (&unit)[PANEL_VECTORS], const std::int8_t* x,
                     Ints (&sums)[R][PANEL_VECTORS]) {
    constexpr int STEPS = 8 / BITS;
#pragma GCC unroll 2
    for (int step = 0; step < STEPS; ++step, x += STEP_BYTES) {
        Octets codes[PANEL_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            codes[v] = BITS == 8 ? unit[v] : step == 0 ? high_nibbles(unit[v]) : low_nibbles(unit[v]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Octets word = repeat_word(x + RUN_BYTES * r);
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) sums[r][v] = add_dot<BITS>(sums[r][v], codes[v], word);
        }
    }
}

// The next panel's part of an array, fetched into the second-level cache in `turns` steps.
class Upcoming {
  public:
    Upcoming(const void* from, std::size_t bytes, int turns)
        : at_(static_cast<const char*>(from)), lines_(static_cast<int>((bytes / turns + LINE - 1) / LINE)) {}

    inline void fetch() {
        for (int i = 0; i < lines_; ++i) __builtin_prefetch(at_ + i * LINE, 0, 2);
        at_ += lines_ * LINE;
    }

  private:
    const char* at_;
    int lines_;
};

// The outliers of all rows, by input: those of a block are added when its codes are at hand.
struct SortedOutliers {
    struct Entry {
        std::int32_t input, row;
        float value;
    };
    std::int32_t count = 0;

    static std::size_t bytes(std::int32_t rows) {
        return sizeof(SortedOutliers) + sizeof(Entry) * rows * OutlierRow::MOST;
    }

    const Entry* begin() const { return reinterpret_cast<const Entry*>(this + 1); }
    const Entry* end() const { return begin() + count; }

    // From behind: rows have most of theirs in the same few inputs.
    void insert(const Entry& entry) {
        Entry* entries = reinterpret_cast<Entry*>(this + 1);
        std::int32_t at = count++;
        for (; at > 0 && entries[at - 1].input > entry.input; --at) entries[at] = entries[at - 1];
        entries[at] = entry;
    }
};

template <int BITS>
class FewRows {
  public:
    FewRows(const LinearView& linear, const Activations& x, const SortedOutliers& outliers)
        : linear_(linear),
          blocks_(linear),
          x_(linear, x.count, x.data),
          rows_(x.count),
          outliers_(outliers.begin()),
          outliers_end_(outliers.end()) {}

    // All inputs of a panel.
    void multiply(const Part& part, float* out, std::size_t out_stride) {
        for (int i = 0; i < PANEL; ++i) {
            codes_[i] = linear_.codes + linear_.row_bytes() * part.channel(i);
            alpha_[i] = channel_alpha(linear_, part.channel(i));
        }
        begin_rows(part, rows_, tile_);
        with_rows(rows_, [&](auto r) { add_products<r()>(); });
        copy_rows(tile_, PANEL, rows_, part.channels, out + part.first, out_stride);
    }

  private:
    static constexpr int STEPS = 8 / BITS;  // of a unit
    static constexpr int UNIT_INPUTS = STEP_BYTES * STEPS;

    int first_unit(int block) const { return block * (blocks_.size / UNIT_INPUTS); }

    template <int R>
    [[gnu::noinline]] void add_products() {
        const std::size_t panel_bytes = linear_.row_bytes() * PANEL;
        const std::size_t alphas_of_panel =
            static_cast<std::size_t>(linear_.groups()) * (linear_.symmetric ? 1 : 2) * PANEL;
        Upcoming codes(codes_[0] + panel_bytes, panel_bytes, blocks_.count);
        Upcoming alphas(alpha_[0] + alphas_of_panel, sizeof(std::uint16_t) * alphas_of_panel, blocks_.count);
        Floats sums[R][PANEL_VECTORS];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) sums[r][v] = Floats{};
        }
        const SortedOutliers::Entry* next = outliers_;
        spans_.begin(codes_, static_cast<unsigned>(linear_.row_bytes()));
        for (int block = 0; block < blocks_.count; ++block) {
            if (block % WIDTH == 0) transpose_alphas(block);
            codes.fetch();
            alphas.fetch();
            add_block<R>(block, sums);
            if (__builtin_expect(next < outliers_end_ && next->input < (block + 1) * blocks_.size, 0))
                next = add_outliers(next, block);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                float* at = tile_ + r * PANEL + v * WIDTH;
                store(at, sums[r][v] + load(at));
            }
        }
    }

    [[gnu::noinline]] void transpose_alphas(int block) {
        const int left = blocks_.count - block;
        const bool plain = left >= WIDTH && blocks_.per_group == 1 && !linear_.symmetric;
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            Ints alphas[WIDTH];
            if (plain) {
#pragma GCC unroll 16
                for (int i = 0; i < WIDTH; ++i)
                    alphas[i] = (Ints)load_octets(alpha_[v * WIDTH + i] + 2 * block);
            } else {
                for (int i = 0; i < WIDTH; ++i)
                    alphas[i] = alphas_of_channel(linear_, blocks_, alpha_[v * WIDTH + i], block, left);
            }
            transpose<4>(alphas);
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; ++i) alphas_[i][v] = alphas[i];
        }
    }

    template <int R>
    inline void add_block(int block, Floats (&sums)[R][PANEL_VECTORS]) {
        const std::int8_t* codes = x_.codes + static_cast<std::size_t>(block) * blocks_.size * R;
        Ints products[R][PANEL_VECTORS] = {};
        const int first = first_unit(block), last = first_unit(block + 1);
        for (int unit = first; unit < last; unit += Spans::PHASE) {
            static_assert(TILE_ROWS <= ROWS_AT_ONCE || STEPS_TOGETHER % (Spans::PHASE * STEPS) == 0,
                          "a phase's steps stand together");
            const int step = (unit - first) * STEPS;
            const std::int8_t* x =
                codes + step / STEPS_TOGETHER * RUN_BYTES * R + step % STEPS_TOGETHER * STEP_BYTES;
            const Spans::Unit* units = spans_.units(unit);
            spans_.phase(unit,
                         [&](int i) { add_unit<BITS, R>(units[i], x + i * STEPS * STEP_BYTES, products); });
        }
        Floats scales[PANEL_VECTORS], zeros[PANEL_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; ++v)
            convert_alphas<BITS>(linear_.symmetric, alphas_[block % WIDTH][v], zeros[v], scales[v]);
        const std::size_t at = Quantized::in_tile(block, 0, R);
        const float *sums_at = x_.sums + at, *scales_at = x_.scales + at;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Floats row_sum = all(sums_at[BLOCK_RUN * r]), row_scale = all(scales_at[BLOCK_RUN * r]);
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                const Floats scaled = to_floats(products[r][v]) * scales[v];
                sums[r][v] = fused(scaled, row_scale, fused(zeros[v], row_sum, sums[r][v]));
            }
        }
    }

    // The outliers of a block from `next` on, to the rows' sums in memory; returns the first behind it.
    [[gnu::noinline]] const SortedOutliers::Entry* add_outliers(const SortedOutliers::Entry* next,
                                                                int block) {
        const Spans::Unit* units = spans_.units(first_unit(block));
        Floats scales[PANEL_VECTORS], zeros[PANEL_VECTORS], weights[PANEL_VECTORS];
        for (int v = 0; v < PANEL_VECTORS; ++v)
            convert_alphas<BITS>(linear_.symmetric, alphas_[block % WIDTH][v], zeros[v], scales[v]);
        const int start = block * blocks_.size;
        for (int input = -1; next < outliers_end_ && next->input < start + blocks_.size; ++next) {
            for (int v = 0; v < PANEL_VECTORS && next->input != input; ++v) {
                const Ints codes = unpacked(units[(next->input - start) / UNIT_INPUTS][v], next->input);
                weights[v] = fused(to_floats(codes), scales[v], zeros[v]);
            }
            input = next->input;
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                float* at = tile_ + next->row * PANEL + v * WIDTH;
                store(at, fused(weights[v], all(next->value), load(at)));
            }
        }
        return next;
    }

    // The codes of one input.
    static inline Ints unpacked(const Octets& unit, int input) {
        const int byte = input % UNIT_INPUTS * BITS / 8;
        if constexpr (BITS == 8) return codes_of_input<8>(&unit, byte);
        const Octets codes = input % 2 == 0 ? high_nibbles(unit) : low_nibbles(unit);
        return codes_of_input<4>(&codes, byte);
    }

    const LinearView& linear_;
    const Blocks blocks_;
    const Quantized x_;
    const std::int32_t rows_;
    const SortedOutliers::Entry *outliers_, *outliers_end_;
    const std::uint8_t* codes_[PANEL];
    const std::uint16_t* alpha_[PANEL];
    Spans spans_;
    Ints alphas_[WIDTH][PANEL_VECTORS];  // of the blocks at hand, [block][channel]
    alignas(ALIGNMENT) float tile_[TILE_ROWS * PANEL];
};

template <int BITS>
void multiply(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
              float* out, std::size_t out_stride, const SortedOutliers& outliers) {
    FewRows<BITS> product(linear, x, outliers);
    const auto panel = [&](std::int32_t channel) {
        return Part{&linear, channel, last - channel < PANEL ? last - channel : PANEL, 0,
                    linear.stored_inputs};
    };
    for (std::int32_t channel = first; channel < last; channel += PANEL) {
        product.multiply(panel(channel), out, out_stride);
    }
}

}  // namespace

std::size_t few_scratch_bytes(std::int32_t count) {
    return round_up(SortedOutliers::bytes(count), ALIGNMENT);
}

void begin_few(const Activations& x, void* scratch) {
    SortedOutliers& sorted = *static_cast<SortedOutliers*>(scratch);
    sorted = SortedOutliers();
    for (std::int32_t row = 0; x.outliers != nullptr && row < x.count; ++row) {
        const OutlierRow& found = x.outliers[row];
        for (int i = 0; i < found.count; ++i) sorted.insert({found.channels[i], row, found.values[i]});
    }
}

void multiply_few(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                  float* out, std::size_t out_stride, const void* scratch) {
    if constexpr (TILE_ROWS > ROWS_AT_ONCE) {
        static_assert(TILE_ROWS <= ROWS_AT_ONCE || (STEP_BYTES == 4 && !SIGNED_CODES),
                      "what is written here");
        const auto product = linear.bits == 4 ? multiply<4> : multiply<8>;
        product(linear, x, first, last, out, out_stride, *static_cast<const SortedOutliers*>(scratch));
    }
}

}  // namespace pocketglm::POCKETGLM_ISA
