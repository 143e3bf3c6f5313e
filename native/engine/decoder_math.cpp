// Which build of the decoder's arithmetic goes with the chosen matrix kernels.
#include "decoder_math.h"

#include <cstring>

namespace pocketglm {

namespace decoder {
namespace baseline {
extern const DecoderMath decoder_math;
}
#if defined(POCKETGLM_X86_64)
namespace avx2 {
extern const DecoderMath decoder_math;
}
namespace avx512 {
extern const DecoderMath decoder_math;
}
#endif
}  // namespace decoder

std::size_t attention_scratch_floats(const KvLayout& layout, int rows, int group) {
    const std::size_t queries = static_cast<std::size_t>(rows) * group;
    const std::size_t width = static_cast<std::size_t>(layout.head_dim) + layout.value_stride();
    return queries * (KvLayout::PAGE + width + 2) + KvLayout::PAGE * width;
}

std::size_t attention_partial_floats(const KvLayout& layout, int rows, int group) {
    return static_cast<std::size_t>(rows) * group * (2 + layout.value_stride());
}

std::size_t outlier_scratch_bytes(std::int32_t inputs, std::int32_t rows) {
    constexpr std::size_t CHANNELS = 16;
    const std::size_t found = static_cast<std::size_t>(rows) * OutlierRow::MOST;
    const std::size_t distinct = found < static_cast<std::size_t>(inputs) ? found : inputs;
    return sizeof(std::int32_t) * (inputs + 4 * found) + sizeof(float) * distinct * CHANNELS;
}

const DecoderMath& decoder_math_for(const char* kernels_name) {
#if defined(POCKETGLM_X86_64)
    if (std::strncmp(kernels_name, "avx512", 6) == 0) return decoder::avx512::decoder_math;
    if (std::strncmp(kernels_name, "avx2", 4) == 0) return decoder::avx2::decoder_math;
#endif
    (void)kernels_name;  // NEON is arm64's baseline
    return decoder::baseline::decoder_math;
}

}  // namespace pocketglm
