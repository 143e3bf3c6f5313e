// Taking outliers out of activation rows, and adding their products; compiled once per instruction set.
#include "outliers.h"

#include <cmath>

#include "attention.h"
#include "kernels.h"
#include "vectors.h"

namespace pocketglm::decoder::POCKETGLM_ISA {

namespace {

constexpr int CHANNELS = 16;  // output channels whose weights are unpacked together
constexpr int VECTORS = CHANNELS / WIDTH;

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

// Unpacks the weights of single inputs for CHANNELS output channels.
class ChannelWeights {
  public:
    // The output channels from `first` on; those behind `last` repeat its predecessor.
    ChannelWeights(const LinearView& linear, int first, int last)
        : alpha_values_(linear.symmetric ? 1 : 2),
          mask_(linear.bits == 4 ? 15 : 255),
          offset_(linear.bits == 4 ? 8 : 128) {
        const size_t alpha_stride = static_cast<size_t>(linear.groups()) * alpha_values_;
        for (int c = 0; c < CHANNELS; ++c) {
            const int channel = first + c < last ? first + c : last - 1;
            codes_[c] = linear.codes + linear.row_bytes() * channel;
            alpha_[c] = linear.alpha + alpha_stride * channel;
        }
    }

    void unpack(const Place& place, float* to) const {
        int32_t codes[CHANNELS];
        uint16_t scales[CHANNELS], zeros[CHANNELS];
        for (int c = 0; c < CHANNELS; ++c) {
            codes[c] = ((codes_[c][place.byte] >> place.shift) & mask_) - offset_;
            zeros[c] = alpha_[c][place.alpha];
            scales[c] = alpha_[c][place.alpha + alpha_values_ - 1];
        }
        for (int v = 0; v < VECTORS; ++v) {
            Ints values;
            std::memcpy(&values, codes + v * WIDTH, sizeof values);
            Floats weights = __builtin_convertvector(values, Floats) * from_halves(scales + v * WIDTH);
            if (alpha_values_ == 2) weights += from_halves(zeros + v * WIDTH);
            store(to + v * WIDTH, weights);
        }
    }

  private:
    const uint8_t* codes_[CHANNELS];
    const uint16_t* alpha_[CHANNELS];
    int alpha_values_, mask_, offset_;
};

// to[c] += the products of a row's outliers with weights[slots[i]][c], for at most CHANNELS channels.
inline void add_products(const OutlierRow& row, const int32_t* slots, const float* weights, int channels,
                         float* to) {
    float part[CHANNELS] = {};
    float* sums = channels < CHANNELS ? part : to;
    if (channels < CHANNELS) std::memcpy(part, to, sizeof *to * channels);
    for (int v = 0; v < CHANNELS; v += WIDTH) {
        Floats sum = load(sums + v);
        for (int i = 0; i < row.count; ++i) sum += row.values[i] * load(weights + slots[i] * CHANNELS + v);
        store(sums + v, sum);
    }
    if (channels < CHANNELS) std::memcpy(to, part, sizeof *to * channels);
}

void add_to_one_row(const LinearView& linear, const OutlierRow& row, int first, int last, float* out) {
    static constexpr int32_t slots[OutlierRow::MOST] = {0, 1, 2, 3, 4, 5, 6, 7};
    Place places[OutlierRow::MOST];
    for (int i = 0; i < row.count; ++i) places[i] = Place::of(linear, row.channels[i]);
    for (int channel = first; channel < last; channel += CHANNELS) {
        const ChannelWeights channels(linear, channel, last);
        float weights[OutlierRow::MOST * CHANNELS];
        for (int i = 0; i < row.count; ++i) channels.unpack(places[i], weights + i * CHANNELS);
        add_products(row, slots, weights, last - channel, out + channel);
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
                 int first, int last, float* out, size_t stride) {
    const ChannelWeights channels(linear, first, last);
    float* weights = inputs.weights(row_count);  // [inputs, CHANNELS]
    for (int i = 0; i < inputs.count; ++i) channels.unpack(inputs.places[i], weights + i * CHANNELS);
    for (int r = 0; r < row_count; ++r) {
        add_products(rows[r], inputs.slots + r * OutlierRow::MOST, weights, last - first,
                     out + r * stride + first);
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
        add_to_rows(linear, rows, row_count, inputs, channel, last, out, stride);
    }
}

}  // namespace pocketglm::decoder::POCKETGLM_ISA
