#include "dispatch.h"

#include <cstdlib>

namespace pocketglm::quantize {

const std::vector<NamedKernels>& available() {
    static const std::vector<NamedKernels> found = [] {
        std::vector<NamedKernels> list;
#if defined(POCKETGLM_X86_64)
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
            list.push_back({"avx512", &avx512::kernels});
        }
        if (__builtin_cpu_supports("avx2")) list.push_back({"avx2", &avx2::kernels});
#endif
        list.push_back({"baseline", &baseline::kernels});
        return list;
    }();
    return found;
}

const NamedKernels* find(std::string name) {
    if (name.empty()) {
        const char* wanted = std::getenv("POCKETGLM_ISA");
        if (wanted == nullptr || *wanted == 0) return &available().front();
        name = wanted;
    }
    for (const NamedKernels& candidate : available()) {
        if (name == candidate.name) return &candidate;
    }
    return nullptr;
}

}  // namespace pocketglm::quantize
