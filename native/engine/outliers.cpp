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

// Where one input's code and scale stand in the row of any output channel.
struct Place {
    int32_t byte, shift, alpha;

    static Place of(const LinearView& linear, int input) {
        const int group = input / linear.group;
        const bool high_nibble = linear.bits == 4 && input % 2 == 0;
        return {linear.bits == 4 ? input / 2 : input, high_nibble ? 4 : 0,
                linear.symmetric ? group : 2 * group};
    }
};

// Unpacks single weights of one output channel after the other.
struct ChannelWeights {
    const uint8_t* codes;
    const uint16_t* alpha;
    size_t code_stride, alpha_stride;
    int mask, offset;
    bool symmetric;

    ChannelWeights(const LinearView& linear, int channel)
        : code_stride(linear.row_bytes()),
          alpha_stride(static_cast<size_t>(linear.groups()) * (linear.symmetric ? 1 : 2)),
          mask(linear.bits == 4 ? 15 : 255),
          offset(linear.bits == 4 ? 8 : 128),
          symmetric(linear.symmetric) {
        codes = linear.codes + code_stride * channel;
        alpha = linear.alpha + alpha_stride * channel;
    }

    void next() {
        codes += code_stride;
        alpha += alpha_stride;
    }
    float at(const Place& place) const {
        const float code = static_cast<float>(((codes[place.byte] >> place.shift) & mask) - offset);
        if (symmetric) return code * from_half(alpha[place.alpha]);
        return code * from_half(alpha[place.alpha + 1]) + from_half(alpha[place.alpha]);
    }
};

// In the order of `add_to_rows`, so that a row's result does not depend on the rows beside it.
void add_to_one_row(const LinearView& linear, const OutlierRow& row, int first, int last, float* out) {
    Place places[OutlierRow::MOST];
    for (int i = 0; i < row.count; ++i) places[i] = Place::of(linear, row.channels[i]);
    ChannelWeights weights(linear, first);
    for (int channel = first; channel < last; ++channel, weights.next()) {
        float sum = out[channel];
        for (int i = 0; i < row.count; ++i) sum += row.values[i] * weights.at(places[i]);
        out[channel] = sum;
    }
}

// The inputs that are outliers in some row, each once, and where those of every row stand among them.
struct Inputs {
    int count = 0;
    int32_t* slot_of;  // [inputs], -1 where an input is no outlier
    Place* places;     // [count]
    int32_t* slots;    // [rows, MOST]

    Inputs(const LinearView& linear, const OutlierRow* rows, int row_count, void* scratch) {
        slot_of = static_cast<int32_t*>(scratch);
        slots = slot_of + linear.inputs;
        places = reinterpret_cast<Place*>(slots + static_cast<size_t>(row_count) * OutlierRow::MOST);
        std::memset(slot_of, 0xff, sizeof(int32_t) * linear.inputs);
        for (int r = 0; r < row_count; ++r) {
            for (int i = 0; i < rows[r].count; ++i) {
                int32_t& slot = slot_of[rows[r].channels[i]];
                if (slot < 0) {
                    slot = count;
                    places[count++] = Place::of(linear, rows[r].channels[i]);
                }
                slots[r * OutlierRow::MOST + i] = slot;
            }
        }
    }
    float* weights(int row_count) const {
        return reinterpret_cast<float*>(places + static_cast<size_t>(row_count) * OutlierRow::MOST);
    }
};

// The channels from `first` on, at most CHANNELS, of all rows.
void add_to_rows(const LinearView& linear, const OutlierRow* rows, int row_count, const Inputs& inputs,
                 int first, int channels, float* out, size_t stride) {
    float* weights = inputs.weights(row_count);  // [inputs, CHANNELS]
    ChannelWeights channel(linear, first);
    for (int c = 0; c < channels; ++c, channel.next()) {
        for (int i = 0; i < inputs.count; ++i) weights[i * CHANNELS + c] = channel.at(inputs.places[i]);
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
    if (row_count == 1) {
        if (rows[0].count > 0) add_to_one_row(linear, rows[0], first, last, out);
        return;
    }
    const Inputs inputs(linear, rows, row_count, scratch);
    if (inputs.count == 0) return;
    for (int channel = first; channel < last; channel += CHANNELS) {
        const int channels = last - channel < CHANNELS ? last - channel : CHANNELS;
        add_to_rows(linear, rows, row_count, inputs, channel, channels, out, stride);
    }
}

}  // namespace pocketglm::decoder::POCKETGLM_ISA
