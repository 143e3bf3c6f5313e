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

namespace {

// The engine's kernels know finer instruction sets under the same variable: avx512vnni is run by avx512,
// and what has no build here by the baseline.
std::string build_for(const std::string& wanted) {
    for (const char* name : {"avx512", "avx2"}) {
        if (wanted.rfind(name, 0) == 0) return name;
    }
    return wanted == "scalar" || wanted.rfind("neon", 0) == 0 ? "baseline" : wanted;
}

}  // namespace

const NamedKernels* find(std::string name) {
    if (name.empty()) {
        const char* wanted = std::getenv("POCKETGLM_ISA");
        if (wanted == nullptr || *wanted == 0) return &available().front();
        name = build_for(wanted);
    }
    for (const NamedKernels& candidate : available()) {
        if (name == candidate.name) return &candidate;
    }
    return nullptr;
}

}  // namespace pocketglm::quantize
