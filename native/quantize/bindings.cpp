// Python module pocketglm.quantize._kernels. The functions have the names, the arguments and the results of
// pocketglm.quantize.reference; `isa` picks one build of the kernels ("" for the best).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "dispatch.h"

namespace nb = nanobind;
using namespace pocketglm::quantize;

namespace {

struct Half {
    uint16_t bits;
};

}  // namespace

template <>
struct nanobind::detail::dtype_traits<Half> {
    static constexpr dlpack::dtype value{static_cast<uint8_t>(dlpack::dtype_code::Float), 16, 1};
    static constexpr auto name = const_name("float16");
};

namespace {

template <typename T, size_t N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

const Kernels& chosen(const std::string& isa) {
    const NamedKernels* found = find(isa);
    if (found != nullptr) return *found->kernels;
    std::string names;
    for (const NamedKernels& each : available()) names += std::string(names.empty() ? "" : ", ") + each.name;
    throw std::invalid_argument(
        "the instruction set asked for (POCKETGLM_ISA or isa=) is not one of this "
        "machine's: " +
        names);
}

void require(bool condition, const char* problem) {
    if (!condition) throw std::invalid_argument(problem);
}

// Checks that the arrays agree, so that no kernel reads or writes outside them.
template <typename Codes, typename Alpha>
Layout checked_layout(size_t rows, size_t inputs, int bits, size_t group_size, const Codes& codes,
                      const Alpha& alpha) {
    require(bits == 4 || bits == 8, "bits must be 4 or 8");
    require(group_size > 0 && group_size % 32 == 0, "group_size must be a multiple of 32");
    require(alpha.shape(2) == 1 || alpha.shape(2) == 2, "alpha must have 1 or 2 values per group");
    const Layout layout{rows, inputs, alpha.shape(1), group_size, bits, alpha.shape(2) == 1};
    require(inputs > 0 && layout.groups == (inputs + group_size - 1) / group_size,
            "alpha's groups do not fit the inputs");
    require(codes.shape(0) == rows && alpha.shape(0) == rows, "numbers of rows differ");
    require(codes.shape(1) == layout.code_bytes(), "codes do not fit the inputs");
    return layout;
}

void quantize(Array<const float, 2> weights, nb::object importance, int bits, size_t group_size,
              bool symmetric, bool search, Array<uint8_t, 2> codes, Array<Half, 3> alpha,
              const std::string& isa) {
    const Kernels& kernels = chosen(isa);
    const Layout layout = checked_layout(weights.shape(0), weights.shape(1), bits, group_size, codes, alpha);
    require(layout.symmetric == symmetric, "alpha must have 1 value per group if symmetric, else 2");
    const size_t stored = layout.stored_inputs();
    const float* column_importance = nullptr;
    std::vector<float> mass;
    Array<const float, 1> given;
    if (!importance.is_none()) {
        given = nb::cast<Array<const float, 1>>(importance);
        require(given.shape(0) == stored, "importance does not fit the stored inputs");
        column_importance = given.data();
        mass.assign(layout.groups, 0.0f);
        for (size_t i = 0; i < stored; ++i) mass[i / group_size] += column_importance[i];
    }
    require(column_importance != nullptr || stored == layout.inputs, "padded rows need importance");
    std::vector<float> row(stored);
    std::vector<int8_t> signed_codes(stored);
    const Workspace workspace{row.data(), signed_codes.data()};
    uint16_t* halves = reinterpret_cast<uint16_t*>(alpha.data());
    nb::gil_scoped_release unlocked;
    kernels.quantize(layout, weights.data(), column_importance, column_importance ? mass.data() : nullptr,
                     search, workspace, codes.data(), halves);
}

void dequantize(Array<const uint8_t, 2> codes, Array<const Half, 3> alpha, int bits, size_t group_size,
                Array<float, 2> out, const std::string& isa) {
    const Kernels& kernels = chosen(isa);
    const Layout layout = checked_layout(out.shape(0), out.shape(1), bits, group_size, codes, alpha);
    std::vector<float> row(group_size);
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(alpha.data());
    nb::gil_scoped_release unlocked;
    kernels.dequantize(layout, codes.data(), halves, {row.data(), nullptr}, out.data());
}

std::tuple<double, double, double, double, double> compare(Array<const float, 2> original,
                                                           Array<const float, 2> stored,
                                                           const std::string& isa) {
    const Kernels& kernels = chosen(isa);
    const size_t rows = original.shape(0), inputs = original.shape(1);
    require(stored.shape(0) == rows && stored.shape(1) == inputs, "shapes differ");
    nb::gil_scoped_release unlocked;
    const Comparison sums = kernels.compare(original.data(), stored.data(), rows, inputs);
    return {sums.squared_error, sums.squared_norm, sums.squared_stored, sums.dot, sums.max_abs_error};
}

size_t first_unrepresentable(Array<const float, 2> weights, const std::string& isa) {
    const Kernels& kernels = chosen(isa);
    const size_t count = weights.shape(0) * weights.shape(1);
    nb::gil_scoped_release unlocked;
    return kernels.first_unrepresentable(weights.data(), count);
}

std::vector<std::string> isa_names() {
    std::vector<std::string> names;
    for (const NamedKernels& each : available()) names.emplace_back(each.name);
    return names;
}

}  // namespace

NB_MODULE(_kernels, module) {
    module.def("quantize", &quantize, nb::arg("weights"), nb::arg("importance").none(), nb::arg("bits"),
               nb::arg("group_size"), nb::arg("symmetric"), nb::arg("search"), nb::arg("codes").noconvert(),
               nb::arg("alpha").noconvert(), nb::arg("isa") = "");
    module.def("dequantize", &dequantize, nb::arg("codes"), nb::arg("alpha"), nb::arg("bits"),
               nb::arg("group_size"), nb::arg("out").noconvert(), nb::arg("isa") = "");
    module.def("compare", &compare, nb::arg("original"), nb::arg("stored"), nb::arg("isa") = "");
    module.def("first_unrepresentable", &first_unrepresentable, nb::arg("weights"), nb::arg("isa") = "");
    module.def("isa_names", &isa_names);
}
