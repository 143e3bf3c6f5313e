// The tables of matrix kernels: one for each instruction set the compiler builds for.
#pragma once

#include "kernels.h"

namespace pocketglm {

namespace scalar {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace avx512vnni {
extern const Kernels kernels;
}
namespace avx2vnni {  // CPUs with AVX-VNNI
extern const Kernels kernels;
}
namespace avx2vnni_evex {  // the same source with AVX-512's form of the instruction, at 256 bits
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
#elif defined(__aarch64__)
namespace neon_i8mm {
extern const Kernels kernels;
}
namespace neon_dotprod {
extern const Kernels kernels;
}
namespace neon {
extern const Kernels kernels;
}
#endif

}  // namespace pocketglm
