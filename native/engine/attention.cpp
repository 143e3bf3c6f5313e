// Attention over the paged KV cache with a streaming softmax (Milakov and Gimelshein, 2018,
// arXiv:1805.02867); compiled once per instruction set.
//
// A page's 64 columns at a time: scores of all the task's queries, then the running maximum, sum and
// weighted values. Queries of one KV head share every read of its keys and values.
#include "attention.h"

#include <cmath>

#include "vectors.h"

namespace pocketglm::decoder::POCKETGLM_ISA {

namespace {

constexpr int PAGE = KvLayout::PAGE;
// Sums that fit the registers beside the operands: 6 x 4 of 32, or 2 x 4 of 16.
constexpr int ROW_TILE = WIDTH == 16 ? 6 : 2;
constexpr int COLUMN_TILE = 4;
// From this many queries on, a page is made float32 once instead of at every use.
constexpr int MANY_QUERIES = 2 * ROW_TILE;
// Stands for minus infinity without making NaN of differences.
constexpr float LOWEST_SCORE = -1e30f;

inline Floats load_elements(const float* from) { return load(from); }
inline Floats load_elements(const uint16_t* from) { return from_halves(from); }
inline Floats load_elements(const int8_t* from) { return from_bytes(from); }

// The next page's tile, fetched line by line while this one's is multiplied: asked for all at once, its
// lines would wait for each other, and the arithmetic for them.
struct Ahead {
    const uint8_t* at = nullptr;
    size_t left = 0;  // lines

    inline void fetch_one() {
        constexpr size_t LINE = 64;
        if (left == 0) return;
        __builtin_prefetch(at, 0, 2);
        at += LINE;
        --left;
    }
};

template <typename Element, int ROWS, int VECTORS>
inline void multiply_tile(const float* a, size_t a_stride, const Element* b, size_t b_stride, int depth,
                          float* c, size_t c_stride, bool accumulate, Ahead& ahead) {
    Floats sums[ROWS][VECTORS];
    for (int r = 0; r < ROWS; ++r) {
        for (int v = 0; v < VECTORS; ++v) {
            sums[r][v] = accumulate ? load(c + r * c_stride + v * WIDTH) : Floats{};
        }
    }
    Ahead next = ahead;
    for (int k = 0; k < depth; ++k) {
        next.fetch_one();
        Floats right[VECTORS];
        for (int v = 0; v < VECTORS; ++v) right[v] = load_elements(b + k * b_stride + v * WIDTH);
        for (int r = 0; r < ROWS; ++r) {
            const Floats left = all(a[r * a_stride + k]);
            for (int v = 0; v < VECTORS; ++v) sums[r][v] += left * right[v];
        }
    }
    ahead = next;
    for (int r = 0; r < ROWS; ++r) {
        for (int v = 0; v < VECTORS; ++v) store(c + r * c_stride + v * WIDTH, sums[r][v]);
    }
}

template <typename Element, int ROWS>
inline void multiply_rows(const float* a, size_t a_stride, const Element* b, size_t b_stride, int depth,
                          float* c, size_t c_stride, int columns, bool accumulate, Ahead& ahead) {
    int at = 0;
    for (; at + COLUMN_TILE * WIDTH <= columns; at += COLUMN_TILE * WIDTH) {
        multiply_tile<Element, ROWS, COLUMN_TILE>(a, a_stride, b + at, b_stride, depth, c + at, c_stride,
                                                  accumulate, ahead);
    }
    for (; at < columns; at += WIDTH) {
        multiply_tile<Element, ROWS, 1>(a, a_stride, b + at, b_stride, depth, c + at, c_stride, accumulate,
                                        ahead);
    }
}

template <typename Element, int ROWS>
inline void multiply_rest(const float* a, size_t a_stride, int rows, const Element* b, size_t b_stride,
                          int depth, float* c, size_t c_stride, int columns, bool accumulate, Ahead& ahead) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS) {
            multiply_rows<Element, ROWS>(a, a_stride, b, b_stride, depth, c, c_stride, columns, accumulate,
                                         ahead);
        } else {
            multiply_rest<Element, ROWS - 1>(a, a_stride, rows, b, b_stride, depth, c, c_stride, columns,
                                             accumulate, ahead);
        }
    }
}

// c [rows, columns] (+)= a [rows, depth] b [depth, columns]; columns are whole vectors.
template <typename Element>
void multiply(const float* a, size_t a_stride, int rows, const Element* b, size_t b_stride, int depth,
              float* c, size_t c_stride, int columns, bool accumulate, Ahead& ahead) {
    int r = 0;
    for (; r + ROW_TILE <= rows; r += ROW_TILE) {
        multiply_rows<Element, ROW_TILE>(a + r * a_stride, a_stride, b, b_stride, depth, c + r * c_stride,
                                         c_stride, columns, accumulate, ahead);
    }
    multiply_rest<Element, ROW_TILE - 1>(a + r * a_stride, a_stride, rows - r, b, b_stride, depth,
                                         c + r * c_stride, c_stride, columns, accumulate, ahead);
}

// The parts of a task's scratch memory, and of its tile in one page.
struct Work {
    int queries, head_dim, value_stride;
    float *scaled_queries, *mixed, *scores, *maximum, *total, *keys, *values;

    explicit Work(const AttentionTask& task)
        : queries(task.rows * task.group),
          head_dim(task.layout->head_dim),
          value_stride(task.layout->value_stride()) {
        scores = task.scratch;
        mixed = scores + static_cast<size_t>(queries) * PAGE;
        keys = mixed + static_cast<size_t>(queries) * value_stride;
        values = keys + static_cast<size_t>(PAGE) * head_dim;
        scaled_queries = values + static_cast<size_t>(PAGE) * value_stride;
        maximum = scaled_queries + static_cast<size_t>(queries) * head_dim;
        total = maximum + queries;
    }
};

void gather_queries(const AttentionTask& task, const Work& work) {
    const float factor = 1.0f / std::sqrt(static_cast<float>(work.head_dim));
    float* to = work.scaled_queries;
    for (int r = 0; r < task.rows; ++r) {
        const float* from = task.queries + r * task.row_stride;
        for (int i = 0; i < task.group * work.head_dim; ++i) *to++ = from[i] * factor;
    }
    for (int q = 0; q < work.queries; ++q) {
        work.maximum[q] = LOWEST_SCORE;
        work.total[q] = 0;
    }
    std::memset(work.mixed, 0, sizeof(float) * work.queries * work.value_stride);
}

// Whether every row sees all of the page's columns.
bool sees_all(const AttentionTask& task, int first_column) {
    const int end = first_column + PAGE;
    if (end <= task.prefix) return true;
    const bool causal = end - 1 <= task.first_row;
    const int last_row = task.first_row + task.rows - 1;
    return causal && (task.window == 0 || first_column > last_row - task.window);
}

// Scores of columns that row `position` must not see become too low to count.
void hide(const AttentionTask& task, int position, int first_column, float* scores) {
    const Ints from = Ints{} + (task.window == 0 ? -1 : position - task.window);
    for (int at = 0; at < PAGE; at += WIDTH) {
        Ints column = Ints{} + (first_column + at);
        for (int lane = 0; lane < WIDTH; ++lane) column[lane] += lane;
        const Ints seen = ((column <= position) & (column > from)) | (column < task.prefix);
        const Floats value = load(scores + at);
        store(scores + at, seen ? value : all(-HUGE_VALF));
    }
}

// Takes a page's scores of one query into its running softmax: they become weights.
void soften(const Work& work, int query, const float* value_scales) {
    float* scores = work.scores + static_cast<size_t>(query) * PAGE;
    Floats high = load(scores);
    for (int at = WIDTH; at < PAGE; at += WIDTH) high = greater(high, load(scores + at));
    const float before = work.maximum[query];
    const float page_highest = largest(high);
    const float now = page_highest > before ? page_highest : before;
    Floats added{};
    for (int at = 0; at < PAGE; at += WIDTH) {
        Floats weight = exponential(load(scores + at) - now);
        added += weight;
        if (value_scales != nullptr) weight *= load(value_scales + at);
        store(scores + at, weight);
    }
    if (now > before) {
        const float shrink = std::exp(before - now);
        work.total[query] *= shrink;
        float* mixed = work.mixed + static_cast<size_t>(query) * work.value_stride;
        for (int at = 0; at < work.value_stride; at += WIDTH) store(mixed + at, load(mixed + at) * shrink);
        work.maximum[query] = now;
    }
    work.total[query] += sum(added);
}

template <typename Element>
void widen(const Element* from, size_t count, float* to) {
    for (size_t i = 0; i < count; i += WIDTH) store(to + i, load_elements(from + i));
}

void weigh_page(const AttentionTask& task, const Work& work, int first_column, const float* scales) {
    const bool all_seen = sees_all(task, first_column);
    for (int query = 0; query < work.queries; ++query) {
        float* scores = work.scores + static_cast<size_t>(query) * PAGE;
        if (scales != nullptr) {
            for (int at = 0; at < PAGE; at += WIDTH)
                store(scores + at, load(scores + at) * load(scales + at));
        }
        if (!all_seen) hide(task, task.first_row + query / task.group, first_column, scores);
        soften(work, query, scales == nullptr ? nullptr : scales + PAGE);
    }
}

// Scores, weights and weighted values of one page, whose values stand for `columns` positions.
template <typename Element>
void mix_page(const AttentionTask& task, const Work& work, int first_column, int columns, const Element* keys,
              const Element* values, const float* scales, Ahead& ahead) {
    multiply(work.scaled_queries, work.head_dim, work.queries, keys, PAGE, work.head_dim, work.scores, PAGE,
             PAGE, false, ahead);
    weigh_page(task, work, first_column, scales);
    multiply(work.scores, PAGE, work.queries, values, work.value_stride, columns, work.mixed,
             work.value_stride, work.value_stride, true, ahead);
}

template <typename Element>
void attend_page(const AttentionTask& task, const Work& work, int page, bool convert, Ahead& ahead) {
    const KvLayout& layout = *task.layout;
    const uint8_t* tile = task.pages[page] + task.offset;
    const Element* keys = reinterpret_cast<const Element*>(tile);
    const Element* values = reinterpret_cast<const Element*>(tile + layout.values_offset());
    const bool scaled = layout.type == KvType::Int8;
    const float* scales = scaled ? reinterpret_cast<const float*>(tile + layout.scales_offset()) : nullptr;
    const int first_column = page * PAGE;
    const int last_row = task.first_row + task.rows;
    const int end = last_row > task.prefix ? last_row : task.prefix;
    const int columns = end - first_column < PAGE ? end - first_column : PAGE;
    if (!convert) return mix_page(task, work, first_column, columns, keys, values, scales, ahead);
    widen(keys, static_cast<size_t>(PAGE) * work.head_dim, work.keys);
    widen(values, static_cast<size_t>(columns) * work.value_stride, work.values);
    mix_page<float>(task, work, first_column, columns, work.keys, work.values, scales, ahead);
}

void write_result(const AttentionTask& task, const Work& work) {
    for (int query = 0; query < work.queries; ++query) {
        const float* mixed = work.mixed + static_cast<size_t>(query) * work.value_stride;
        if (task.partial != nullptr) {
            float* to = task.partial + static_cast<size_t>(query) * (2 + work.value_stride);
            to[0] = work.maximum[query];
            to[1] = work.total[query];
            std::memcpy(to + 2, mixed, sizeof(float) * work.value_stride);
            continue;
        }
        float* to =
            task.output + (query / task.group) * task.row_stride + (query % task.group) * work.head_dim;
        const float factor = 1.0f / work.total[query];
        for (int i = 0; i < work.head_dim; ++i) to[i] = mixed[i] * factor;
    }
}

template <typename Element>
void attend_as(const AttentionTask& task) {
    const Work work(task);
    gather_queries(task, work);
    const bool convert = sizeof(Element) < sizeof(float) && work.queries >= MANY_QUERIES;
    const size_t lines = task.layout->scales_offset() / 64;
    for (int page = task.first_page; page < task.last_page; ++page) {
        Ahead ahead;
        if (page + 1 < task.last_page) ahead = {task.pages[page + 1] + task.offset, lines};
        attend_page<Element>(task, work, page, convert, ahead);
    }
    write_result(task, work);
}

inline void store_elements(float* to, Floats value) { store(to, value); }
inline void store_elements(uint16_t* to, Floats value) { to_halves(to, value); }
inline void store_elements(int8_t* to, Floats value) {
    float lanes[WIDTH];
    store(lanes, value);
    for (int i = 0; i < WIDTH; ++i) to[i] = static_cast<int8_t>(std::nearbyint(lanes[i]));
}

// What a row is divided by so that it fits int8; 1 for a row of zeros.
float int8_scale(const float* row, int count) {
    float highest = 0;
    for (int i = 0; i < count; ++i) highest = std::fabs(row[i]) > highest ? std::fabs(row[i]) : highest;
    return highest > 0 ? highest / 127.0f : 1.0f;
}

inline Floats load_at_most(const float* from, int left) {
    return left >= WIDTH ? load(from) : load_part(from, left);
}

template <typename Element>
void store_rows_as(const KvLayout& layout, uint8_t* tile, int column, const float* keys, const float* values,
                   size_t stride, int count) {
    const int head_dim = layout.head_dim;
    Element* key_tile = reinterpret_cast<Element*>(tile);
    Element* value_tile = reinterpret_cast<Element*>(tile + layout.values_offset());
    float* scales = reinterpret_cast<float*>(tile + layout.scales_offset());
    constexpr bool scaled = sizeof(Element) == 1;
    for (int row = 0; row < count && scaled; ++row) {
        scales[column + row] = int8_scale(keys + row * stride, head_dim);
        scales[PAGE + column + row] = int8_scale(values + row * stride, head_dim);
    }
    for (int at = 0; at < head_dim; at += WIDTH) {
        const int left = head_dim - at;
        for (int row = 0; row < count; ++row) {
            const float key_factor = scaled ? 1.0f / scales[column + row] : 1.0f;
            const float value_factor = scaled ? 1.0f / scales[PAGE + column + row] : 1.0f;
            Element lanes[WIDTH];
            store_elements(lanes, load_at_most(keys + row * stride + at, left) * key_factor);
            for (int i = 0; i < WIDTH && i < left; ++i) key_tile[(at + i) * PAGE + column + row] = lanes[i];
            store_elements(value_tile + static_cast<size_t>(column + row) * layout.value_stride() + at,
                           load_at_most(values + row * stride + at, left) * value_factor);
        }
    }
}

template <typename Element>
void load_rows_as(const KvLayout& layout, const uint8_t* tile, int column, float* keys, float* values,
                  size_t stride, int count) {
    const Element* key_tile = reinterpret_cast<const Element*>(tile);
    const Element* value_tile = reinterpret_cast<const Element*>(tile + layout.values_offset());
    const float* scales = reinterpret_cast<const float*>(tile + layout.scales_offset());
    constexpr bool scaled = sizeof(Element) == 1;
    for (int at = 0; at < layout.head_dim; at += WIDTH) {
        const int lanes_left = layout.head_dim - at < WIDTH ? layout.head_dim - at : WIDTH;
        for (int row = 0; row < count; ++row) {
            const float key_scale = scaled ? scales[column + row] : 1.0f;
            const float value_scale = scaled ? scales[PAGE + column + row] : 1.0f;
            Element lanes[WIDTH];
            for (int i = 0; i < lanes_left; ++i) lanes[i] = key_tile[(at + i) * PAGE + column + row];
            for (int i = lanes_left; i < WIDTH; ++i) lanes[i] = 0;
            store_part(keys + row * stride + at, load_elements(lanes) * key_scale, lanes_left);
            const Element* from = value_tile + static_cast<size_t>(column + row) * layout.value_stride() + at;
            store_part(values + row * stride + at, load_elements(from) * value_scale, lanes_left);
        }
    }
}

}  // namespace

void store_rows(const KvLayout& layout, uint8_t* tile, int column, const float* keys, const float* values,
                size_t stride, int count) {
    switch (layout.type) {
        case KvType::Float32:
            return store_rows_as<float>(layout, tile, column, keys, values, stride, count);
        case KvType::Float16:
            return store_rows_as<uint16_t>(layout, tile, column, keys, values, stride, count);
        case KvType::Int8:
            return store_rows_as<int8_t>(layout, tile, column, keys, values, stride, count);
    }
}

void load_rows(const KvLayout& layout, const uint8_t* tile, int column, float* keys, float* values,
               size_t stride, int count) {
    switch (layout.type) {
        case KvType::Float32:
            return load_rows_as<float>(layout, tile, column, keys, values, stride, count);
        case KvType::Float16:
            return load_rows_as<uint16_t>(layout, tile, column, keys, values, stride, count);
        case KvType::Int8:
            return load_rows_as<int8_t>(layout, tile, column, keys, values, stride, count);
    }
}

void attend(const AttentionTask& task) {
    switch (task.layout->type) {
        case KvType::Float32:
            return attend_as<float>(task);
        case KvType::Float16:
            return attend_as<uint16_t>(task);
        case KvType::Int8:
            return attend_as<int8_t>(task);
    }
}

void merge_attention(const AttentionTask& task, const float* partials, std::size_t part_stride, int parts) {
    const int queries = task.rows * task.group, head_dim = task.layout->head_dim;
    const size_t query_stride = 2 + static_cast<size_t>(task.layout->value_stride());
    for (int query = 0; query < queries; ++query) {
        const float* first = partials + query * query_stride;
        float highest = LOWEST_SCORE, total = 0;
        for (int part = 0; part < parts; ++part) {
            const float maximum = first[part * part_stride];
            highest = maximum > highest ? maximum : highest;
        }
        for (int part = 0; part < parts; ++part) {
            total += first[part * part_stride + 1] * std::exp(first[part * part_stride] - highest);
        }
        float* to = task.output + (query / task.group) * task.row_stride + (query % task.group) * head_dim;
        for (int i = 0; i < head_dim; ++i) to[i] = 0;
        for (int part = 0; part < parts; ++part) {
            const float* from = first + part * part_stride;
            const float factor = std::exp(from[0] - highest) / total;
            for (int i = 0; i < head_dim; ++i) to[i] += from[2 + i] * factor;
        }
    }
}

}  // namespace pocketglm::decoder::POCKETGLM_ISA
