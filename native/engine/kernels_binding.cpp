// Python module pocketglm.engine.native._kernels: the matrix kernels by themselves, for their tests and
// for bench/kernels.py. `isa` picks one table ("" for the best).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
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
    require(out.shape(0) == count && out.shape(1) == rows && out.stride(1) == 1, "out does not fit the shape");
    require(first <= last && last <= rows, "the range of channels is not within the shape");
    const int32_t n = static_cast<int32_t>(count);
    const Buffer data = allocate(kernels.activation_bytes(view, n));
    const Buffer scratch = allocate(kernels.scratch_bytes(view, n));
    const Activations activations{data.get(), n};
    if (step == 0) step = rows;
    nb::gil_scoped_release unlocked;
    kernels.prepare(view, x.data(), inputs, 0, n / 2, activations);
    kernels.prepare(view, x.data(), inputs, n / 2, n, activations);
    for (size_t at = first; at < last; at += step) {
        kernels.matmul(view, activations, static_cast<int32_t>(at),
                       static_cast<int32_t>(std::min(at + step, last)), out.data(), out.stride(0),
                       scratch.get());
    }
}

std::vector<std::string> isa_names() {
    std::vector<std::string> names;
    for (const char* const* name = runnable_kernels(); *name != nullptr; ++name) names.emplace_back(*name);
    return names;
}

}  // namespace

NB_MODULE(_kernels, module) {
    module.def("matmul", &matmul, nb::arg("x"), nb::arg("out").noconvert(), nb::arg("codes"), nb::arg("alpha"),
               nb::arg("bias"), nb::arg("rows"), nb::arg("inputs"), nb::arg("bits"), nb::arg("group"),
               nb::arg("symmetric"), nb::arg("first"), nb::arg("last"), nb::arg("step") = 0,
               nb::arg("isa") = "");
    module.def("isa_names", &isa_names);
}
