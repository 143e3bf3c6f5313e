// Taking outliers out of activation rows, and adding their products; compiled once per instruction set.
#include "outliers.h"

#include <cmath>

#include "attention.h"
#include "kernels.h"
#include "vectors.h"

namespace pocketglm::decoder::POCKETGLM_ISA {

namespace {

constexpr int CHANNELS = 16;  // output channels whose weights are unpacked together

// Keeps the MOST largest values that it is shown.
void keep_largest(OutlierRow& found, int channel, float value) {
    int at = found.count;
    if (at == OutlierRow::MOST) {
        at = 0;
        for (int i = 1; i < OutlierRow::MOST; ++i) {
            if (std::fabs(found.values[i]) < std::fabs(found.values[at])) at = i;
        }
        if (std::fabs(value) <= std::fabs(found.values[at])) return;
    } else {
        ++found.count;
    }
    found.channels[at] = channel;
    found.values[at] = value;
}

// Unpacks single weights of one output channel.
struct ChannelWeights {
    const LinearView& linear;
    const uint8_t* codes;
    const uint16_t* alpha;

    ChannelWeights(const LinearView& view, int channel)
        : linear(view),
          codes(view.codes + view.row_bytes() * channel),
          alpha(view.alpha + static_cast<size_t>(channel) * view.groups() * (view.symmetric ? 1 : 2)) {}

    float at(int input) const {
        const int group = input / linear.group;
        int code;
        if (linear.bits == 4) {
            const int both = codes[input / 2];
            code = (input % 2 == 0 ? both >> 4 : both & 15) - 8;
        } else {
            code = codes[input] - 128;
        }
        if (linear.symmetric) return static_cast<float>(code) * from_half(alpha[group]);
        return static_cast<float>(code) * from_half(alpha[2 * group + 1]) + from_half(alpha[2 * group]);
    }
};

void add_to_one_row(const LinearView& linear, const OutlierRow& row, int first, int last, float* out) {
    for (int channel = first; channel < last; ++channel) {
        const ChannelWeights weights(linear, channel);
        float added = 0;
        for (int i = 0; i < row.count; ++i) added += row.values[i] * weights.at(row.channels[i]);
        out[channel] += added;
    }
}

// The inputs that are outliers in some row, each once, and where those of every row stand among them.
struct Inputs {
    int count = 0;
    int32_t* slot_of;  // [inputs], -1 where an input is no outlier
    int32_t* list;     // [count]
    int32_t* slots;    // [rows, MOST]

    Inputs(const LinearView& linear, const OutlierRow* rows, int row_count, void* scratch) {
        slot_of = static_cast<int32_t*>(scratch);
        list = slot_of + linear.inputs;
        slots = list + static_cast<size_t>(row_count) * OutlierRow::MOST;
        std::memset(slot_of, 0xff, sizeof(int32_t) * linear.inputs);
        for (int r = 0; r < row_count; ++r) {
            for (int i = 0; i < rows[r].count; ++i) {
                int32_t& slot = slot_of[rows[r].channels[i]];
                if (slot < 0) {
                    slot = count;
                    list[count++] = rows[r].channels[i];
                }
                slots[r * OutlierRow::MOST + i] = slot;
            }
        }
    }
    float* weights(int row_count) const {
        return reinterpret_cast<float*>(slots + static_cast<size_t>(row_count) * OutlierRow::MOST);
    }
};

// The channels from `first` on, at most CHANNELS, of all rows.
void add_to_rows(const LinearView& linear, const OutlierRow* rows, int row_count, const Inputs& inputs,
                 int first, int channels, float* out, size_t stride) {
    float* weights = inputs.weights(row_count);  // [inputs, CHANNELS]
    for (int c = 0; c < channels; ++c) {
        const ChannelWeights channel(linear, first + c);
        for (int i = 0; i < inputs.count; ++i) weights[i * CHANNELS + c] = channel.at(inputs.list[i]);
    }
    for (int r = 0; r < row_count; ++r) {
        float* to = out + r * stride + first;
        for (int i = 0; i < rows[r].count; ++i) {
            const float* from =
                weights + static_cast<size_t>(inputs.slots[r * OutlierRow::MOST + i]) * CHANNELS;
            const float value = rows[r].values[i];
            if (channels == CHANNELS) {
                for (int c = 0; c < CHANNELS; ++c) to[c] += value * from[c];
            } else {
                for (int c = 0; c < channels; ++c) to[c] += value * from[c];
            }
        }
    }
}

}  // namespace

void take_outliers(float* row, int count, float ratio, OutlierRow* found) {
    found->count = 0;
    Floats squares{};
    int at = 0;
    for (; at + WIDTH <= count; at += WIDTH) squares += load(row + at) * load(row + at);
    if (at < count) squares += load_part(row + at, count - at) * load_part(row + at, count - at);
    const float limit = ratio * std::sqrt(sum(squares) / static_cast<float>(count));
    constexpr int STEP = 4 * WIDTH;
    for (at = 0; at < count; at += STEP) {
        const int end = at + STEP < count ? at + STEP : count;
        if (end - at == STEP) {
            Floats high = absolute(load(row + at));
            for (int i = WIDTH; i < STEP; i += WIDTH) high = greater(high, absolute(load(row + at + i)));
            if (!any_above(high, limit)) continue;
        }
        for (int i = at; i < end; ++i) {
            if (std::fabs(row[i]) > limit) keep_largest(*found, i, row[i]);
        }
    }
    for (int i = 0; i < found->count; ++i) row[found->channels[i]] = 0;
}

void add_outliers(const LinearView& linear, const OutlierRow* rows, int row_count, int first, int last,
                  float* out, size_t stride, void* scratch) {
    if (row_count == 1) return add_to_one_row(linear, rows[0], first, last, out);
    const Inputs inputs(linear, rows, row_count, scratch);
    if (inputs.count == 0) return;
    for (int channel = first; channel < last; channel += CHANNELS) {
        const int channels = last - channel < CHANNELS ? last - channel : CHANNELS;
        add_to_rows(linear, rows, row_count, inputs, channel, channels, out, stride);
    }
}

}  // namespace pocketglm::decoder::POCKETGLM_ISA
