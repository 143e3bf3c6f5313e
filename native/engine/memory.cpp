#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>

namespace pocketglm {

namespace {

// From here on a mapping of its own costs nothing beside what is done with the memory.
constexpr std::size_t MAPPED_BYTES = 256 << 10;

}  // namespace

void* take_zeroed(std::size_t bytes) {
    if (bytes < MAPPED_BYTES) return std::calloc(1, bytes);
    void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mapped == MAP_FAILED ? nullptr : mapped;
}

void free_zeroed(void* memory, std::size_t bytes) {
    if (bytes < MAPPED_BYTES) {
        std::free(memory);
    } else {
        (void)::munmap(memory, bytes);
    }
}

void want_huge_pages(void* mapped, std::size_t bytes) {
#if defined(MADV_HUGEPAGE)
    (void)::madvise(mapped, bytes, MADV_HUGEPAGE);
#else
    (void)mapped, (void)bytes;
#endif
}

}  // namespace pocketglm
