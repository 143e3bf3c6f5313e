// Python module pocketglm.engine.native._kernels: the matrix kernels by themselves, for their tests and
// for bench/kernels.py. `isa` picks one table ("" for the best).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"

namespace nb = nanobind;
using namespace pocketglm;

namespace {

using FloatRows = nb::ndarray<float, nb::ndim<2>, nb::device::cpu>;
using ConstFloatRows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char* problem) {
    if (!condition) throw std::invalid_argument(problem);
}

const Kernels& chosen(const std::string& isa) {
    const Kernels* found = choose_kernels(isa.c_str());
    require(found != nullptr,
            "the instruction set asked for (POCKETGLM_ISA or isa=) is not one of this machine's: see "
            "isa_names()");
    return *found;
}

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<void, Free>;

Buffer allocate(size_t bytes) {
    constexpr size_t ALIGNMENT = 64;
    Buffer memory(std::aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT));
    if (!memory) throw std::bad_alloc();
    return memory;
}

// A view of arrays in memory, checked so that no kernel reads outside them.
LinearView checked_view(const Bytes& codes, const Bytes& alpha, const Bytes& bias, size_t rows, size_t inputs,
                        int bits, size_t group, bool symmetric) {
    require(bits == 4 || bits == 8 || bits == 16 || bits == 32, "bits must be 4, 8, 16 or 32");
    require(rows > 0 && inputs > 0, "rows and inputs must be positive");
    LinearView view;
    view.codes = codes.data();
    view.rows = static_cast<int32_t>(rows);
    view.inputs = view.stored_inputs = static_cast<int32_t>(inputs);
    view.bits = bits;
    view.symmetric = symmetric;
    if (bits < 16) {
        require(group > 0 && group % 32 == 0, "group must be a multiple of 32");
        view.group = static_cast<int32_t>(group);
        view.stored_inputs = static_cast<int32_t>((inputs + group - 1) / group * group);
        view.alpha = reinterpret_cast<const uint16_t*>(alpha.data());
        require(alpha.size() == rows * view.groups() * (symmetric ? 2 : 4), "alpha does not fit the shape");
    }
    require(codes.size() == rows * view.row_bytes(), "codes do not fit the shape");
    if (bias.size() > 0) {
        require(bias.size() == 4 * rows, "bias does not fit the shape");
        view.bias = reinterpret_cast<const float*>(bias.data());
    }
    return view;
}

// out[:, first:last] = x @ W[first:last].T + bias[first:last], in ranges of `step` channels (0: one range).
void matmul(ConstFloatRows x, FloatRows out, Bytes codes, Bytes alpha, Bytes bias, size_t rows, size_t inputs,
            int bits, size_t group, bool symmetric, size_t first, size_t last, size_t step,
            const std::string& isa) {
    const Kernels& kernels = chosen(isa);
    const LinearView view = checked_view(codes, alpha, bias, rows, inputs, bits, group, symmetric);
    const size_t count = x.shape(0);
    require(x.shape(1) == inputs, "x does not fit the shape");
    require(out.shape(0) == count && out.shape(1) == rows && out.stride(1) == 1,
            "out does not fit the shape");
    require(first <= last && last <= rows, "the range of channels is not within the shape");
    const int32_t n = static_cast<int32_t>(count);
    const Buffer data = allocate(kernels.activation_bytes(view, n));
    const Buffer scratch = allocate(kernels.scratch_bytes(view, n));
    const Activations activations{data.get(), n};
    if (step == 0) step = rows;
    nb::gil_scoped_release unlocked;
    kernels.prepare(view, x.data(), inputs, 0, n / 2, activations);
    kernels.prepare(view, x.data(), inputs, n / 2, n, activations);
    kernels.begin(view, activations, scratch.get());
    for (size_t at = first; at < last; at += step) {
        kernels.matmul(view, activations, static_cast<int32_t>(at),
                       static_cast<int32_t>(std::min(at + step, last)), out.data(), out.stride(0),
                       scratch.get());
    }
}

// Runs body(0) .. body(threads - 1) side by side; wall seconds.
template <typename Body>
double timed(int threads, const Body& body) {
    std::vector<std::thread> team;
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    for (int i = 1; i < threads; ++i) {
        team.emplace_back([&, i] {
            ready.fetch_add(1);
            while (!go.load()) std::this_thread::yield();
            body(i);
        });
    }
    while (ready.load() < threads - 1) std::this_thread::yield();
    const auto start = std::chrono::steady_clock::now();
    go.store(true);
    body(0);
    for (std::thread& each : team) each.join();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Seconds for x @ W.T over `copies` matrices that follow one another in `codes` and `alpha`, each split
// into one range of channels per thread; preparing the activations is part of it.
double time_matmul(ConstFloatRows x, FloatRows out, Bytes codes, Bytes alpha, size_t copies, size_t rows,
                   size_t inputs, int bits, size_t group, bool symmetric, int threads,
                   const std::string& isa) {
    const Kernels& kernels = chosen(isa);
    require(copies > 0 && threads > 0, "copies and threads must be positive");
    LinearView view = checked_view(codes, alpha, {}, rows * copies, inputs, bits, group, symmetric);
    view.rows = static_cast<int32_t>(rows);
    const size_t count = x.shape(0);
    require(x.shape(1) == inputs, "x does not fit the shape");
    require(out.shape(0) == count && out.shape(1) == rows && out.stride(1) == 1,
            "out does not fit the shape");
    const int32_t n = static_cast<int32_t>(count);
    const Buffer data = allocate(kernels.activation_bytes(view, n));
    std::vector<Buffer> scratches;
    for (int i = 0; i < threads; ++i) scratches.push_back(allocate(kernels.scratch_bytes(view, n)));
    const Activations activations{data.get(), n};
    const size_t step = kernels.channel_step(view, n), steps = (rows + step - 1) / step;
    nb::gil_scoped_release unlocked;
    const double prepared = timed(threads, [&](int i) {
        kernels.prepare(view, x.data(), inputs, n * i / threads, n * (i + 1) / threads, activations);
    });
    const double multiplied = timed(threads, [&](int i) {
        LinearView each = view;
        const size_t first = steps * i / threads * step,
                     last = std::min(rows, steps * (i + 1) / threads * step);
        kernels.begin(each, activations, scratches[i].get());
        for (size_t copy = 0; copy < copies; ++copy) {
            kernels.matmul(each, activations, static_cast<int32_t>(first), static_cast<int32_t>(last),
                           out.data(), out.stride(0), scratches[i].get());
            each.codes += view.row_bytes() * rows;
            each.alpha += view.alpha == nullptr ? 0 : rows * view.groups() * (symmetric ? 1 : 2);
        }
    });
    return prepared * copies + multiplied;
}

// Seconds to read an array once, each thread its part.
double time_read(Bytes memory, int threads, const std::string& isa) {
    const Kernels& kernels = chosen(isa);
    require(threads > 0, "threads must be positive");
    nb::gil_scoped_release unlocked;
    std::atomic<uint64_t> sink{0};
    return timed(threads, [&](int i) {
        const size_t first = memory.size() * i / threads / 4096 * 4096;
        const size_t last =
            i + 1 == threads ? memory.size() : memory.size() * (i + 1) / threads / 4096 * 4096;
        sink += kernels.read(memory.data() + first, last - first);
    });
}

// Operations per second of byte dot products in registers, all threads together.
double dot_product_rate(size_t rounds, int threads, const std::string& isa) {
    const Kernels& kernels = chosen(isa);
    require(threads > 0, "threads must be positive");
    nb::gil_scoped_release unlocked;
    std::atomic<uint64_t> sink{0};
    const double seconds = timed(threads, [&](int) { sink += kernels.dot_products(rounds); });
    return static_cast<double>(rounds) * kernels.dot_operations * threads / seconds;
}

std::vector<std::string> isa_names() {
    std::vector<std::string> names;
    for (const char* const* name = runnable_kernels(); *name != nullptr; ++name) names.emplace_back(*name);
    return names;
}

}  // namespace

NB_MODULE(_kernels, module) {
    module.def("matmul", &matmul, nb::arg("x"), nb::arg("out").noconvert(), nb::arg("codes"),
               nb::arg("alpha"), nb::arg("bias"), nb::arg("rows"), nb::arg("inputs"), nb::arg("bits"),
               nb::arg("group"), nb::arg("symmetric"), nb::arg("first"), nb::arg("last"), nb::arg("step") = 0,
               nb::arg("isa") = "");
    module.def("time_matmul", &time_matmul, nb::arg("x"), nb::arg("out").noconvert(), nb::arg("codes"),
               nb::arg("alpha"), nb::arg("copies"), nb::arg("rows"), nb::arg("inputs"), nb::arg("bits"),
               nb::arg("group"), nb::arg("symmetric"), nb::arg("threads"), nb::arg("isa") = "");
    module.def("time_read", &time_read, nb::arg("memory"), nb::arg("threads"), nb::arg("isa") = "");
    module.def("dot_product_rate", &dot_product_rate, nb::arg("rounds"), nb::arg("threads"),
               nb::arg("isa") = "");
    module.def("isa_names", &isa_names);
}
