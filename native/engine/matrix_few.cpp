// More rows than the kernels of matrix_rows.cpp take, and no more than one tile: every weight is used for one
// tile only, so a panel is transposed a few vectors of codes at a time, and what is transposed stays packed
// and in the first-level cache.
#include "matrix.h"
#include "matrix_panel.h"
#include "outliers.h"

namespace pocketglm::POCKETGLM_ISA {

namespace {

// Codes and alphas of a panel's next inputs, transposed.
struct Transposed {
    static constexpr int UNITS = LONGEST_BLOCK / STEP_BYTES > WIDTH ? LONGEST_BLOCK / STEP_BYTES : WIDTH;

    alignas(ALIGNMENT) Octets codes[UNITS][PANEL_VECTORS];  // [unit][channel][STEP_BYTES]
    Ints alphas[WIDTH][PANEL_VECTORS];                      // [block][channel]
};

// sums[r][v] += the products of one unit of codes, STEP_BYTES of every channel, with a tile's rows.
template <int BITS, int R>
inline void add_unit(const Octets (&unit)[PANEL_VECTORS], const std::int8_t* x,
                     Ints (&sums)[R][PANEL_VECTORS]) {
    constexpr int STEPS = 8 / BITS;
#pragma GCC unroll 2
    for (int step = 0; step < STEPS; ++step, x += STEP_BYTES * R) {
        Octets codes[PANEL_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            codes[v] = BITS == 8 ? unit[v] : step == 0 ? high_nibbles(unit[v]) : low_nibbles(unit[v]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Octets word = repeat_word(x + STEP_BYTES * r);
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) sums[r][v] = dot<BITS>(sums[r][v], codes[v], word);
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
    static constexpr int UNIT_INPUTS = STEP_BYTES * 8 / BITS;
    static constexpr int VECTOR_INPUTS = WIDTH * UNIT_INPUTS;

    template <int R>
    [[gnu::noinline]] void add_products() {
        const int step = blocks_.size < VECTOR_INPUTS ? VECTOR_INPUTS / blocks_.size : 1;
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
        for (int block = 0; block < blocks_.count; block += step) {
            if (block % WIDTH == 0) transpose_alphas(block);
            const int left = blocks_.count - block < step ? blocks_.count - block : step;
            transpose_codes(block * blocks_.size, left * blocks_.size);
            for (int i = 0; i < left; ++i) {
                codes.fetch();
                alphas.fetch();
                add_block<R>(block + i, now_.codes + i * (blocks_.size / UNIT_INPUTS), sums);
                if (__builtin_expect(next < outliers_end_ && next->input < (block + i + 1) * blocks_.size, 0))
                    next = add_outliers(next, block + i, now_.codes + i * (blocks_.size / UNIT_INPUTS));
            }
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
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            Ints alphas[WIDTH];
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; ++i)
                alphas[i] = alphas_of_channel(linear_, blocks_, alpha_[v * WIDTH + i], block, left);
            transpose<4>(alphas);
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; ++i) now_.alphas[i][v] = alphas[i];
        }
    }

    [[gnu::noinline]] void transpose_codes(int start, int inputs) {
        const int bytes = inputs * BITS / 8;
        for (int at = 0; at < bytes; at += VECTOR_BYTES) {
            Octets(*to)[PANEL_VECTORS] = now_.codes + at / STEP_BYTES;
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                const std::uint8_t* const* rows = codes_ + v * WIDTH;
                const std::size_t offset = static_cast<std::size_t>(start) * BITS / 8 + at;
                Ints units[WIDTH];
                if (bytes - at >= VECTOR_BYTES) {
#pragma GCC unroll 16
                    for (int i = 0; i < WIDTH; ++i) units[i] = (Ints)load_octets(rows[i] + offset);
                } else {
                    for (int i = 0; i < WIDTH; ++i)
                        units[i] = (Ints)load_octets_part(rows[i] + offset, bytes - at);
                }
                transpose<4>(units);
#pragma GCC unroll 16
                for (int i = 0; i < WIDTH; ++i) to[i][v] = (Octets)units[i];
            }
        }
    }

    template <int R>
    inline void add_block(int block, const Octets (*units)[PANEL_VECTORS], Floats (&sums)[R][PANEL_VECTORS]) {
        const std::int8_t* x = x_.codes + static_cast<std::size_t>(block) * blocks_.size * R;
        Ints products[R][PANEL_VECTORS] = {};
        for (int unit = 0; unit < blocks_.size / UNIT_INPUTS; ++unit, x += UNIT_INPUTS * R)
            add_unit<BITS, R>(units[unit], x, products);
        Floats scales[PANEL_VECTORS], zeros[PANEL_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; ++v)
            convert_alphas<BITS>(linear_.symmetric, now_.alphas[block % WIDTH][v], zeros[v], scales[v]);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Floats row_sum = all(x_.sums[block * R + r]), row_scale = all(x_.scales[block * R + r]);
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                const Floats scaled = to_floats(products[r][v]) * scales[v];
                sums[r][v] = fused(scaled, row_scale, fused(zeros[v], row_sum, sums[r][v]));
            }
        }
    }

    // The outliers of a block from `next` on, to the rows' sums in memory; returns the first behind it.
    [[gnu::noinline]] const SortedOutliers::Entry* add_outliers(const SortedOutliers::Entry* next, int block,
                                                                const Octets (*units)[PANEL_VECTORS]) {
        Floats scales[PANEL_VECTORS], zeros[PANEL_VECTORS], weights[PANEL_VECTORS];
        for (int v = 0; v < PANEL_VECTORS; ++v)
            convert_alphas<BITS>(linear_.symmetric, now_.alphas[block % WIDTH][v], zeros[v], scales[v]);
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
    Transposed now_;
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
