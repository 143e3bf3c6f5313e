// Which kernels this machine can run.
#include <cstdlib>
#include <cstring>

#include "kernels.h"
#include "tables.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pocketglm {

namespace {

constexpr int MOST_TABLES = 8;

struct Runnable {
    const Kernels* tables[MOST_TABLES + 1] = {};
    const char* names[MOST_TABLES + 1] = {};
    int count = 0;

    void add(const Kernels& table) {
        tables[count] = &table;
        names[count++] = table.name;
    }
};

#if defined(__x86_64__)

// Compilers of the time do not all know the name of AVX-VNNI (leaf 7, subleaf 1, EAX bit 4).
bool has_avx_vnni() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & 16u) != 0;
}

void add_simd(Runnable& list) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return;
    const bool wide_vnni = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                           __builtin_cpu_supports("avx512vnni");
    if (wide_vnni) list.add(avx512vnni::kernels);
    if (has_avx_vnni()) {
        list.add(avx2vnni::kernels);
    } else if (wide_vnni) {
        list.add(avx2vnni_evex::kernels);
    }
    list.add(avx2::kernels);
}

#elif defined(__aarch64__)

#if defined(__APPLE__)
bool has_feature(const char* name) {
    int value = 0;
    std::size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_dot_product() { return has_feature("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has_feature("hw.optional.arm.FEAT_I8MM"); }
#else
bool has_dot_product() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
bool has_i8mm() { return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }
#endif

void add_simd(Runnable& list) {
    if (has_dot_product() && has_i8mm()) list.add(neon_i8mm::kernels);
    if (has_dot_product()) list.add(neon_dotprod::kernels);
    list.add(neon::kernels);
}

#else

void add_simd(Runnable&) {}

#endif

const Runnable& runnable() {
    static const Runnable found = [] {
        Runnable list;
        add_simd(list);
        list.add(scalar::kernels);
        return list;
    }();
    return found;
}

}  // namespace

const Kernels* choose_kernels(const char* name_or_null) {
    const char* name = name_or_null;
    if (name == nullptr || *name == 0) name = std::getenv("POCKETGLM_ISA");
    if (name == nullptr || *name == 0) return runnable().tables[0];
    for (int i = 0; i < runnable().count; ++i) {
        if (std::strcmp(runnable().names[i], name) == 0) return runnable().tables[i];
    }
    return nullptr;
}

const char* const* runnable_kernels() { return runnable().names; }

}  // namespace pocketglm
