// Python module pocketglm.engine.native._engine: the C interface with NumPy arrays. What Python passes was
// checked by pocketglm.engine.native; shapes are checked again here, contents behind the interface.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pocketglm.h"

namespace nb = nanobind;

namespace {

using FloatRows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutputRows = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using States = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using OutputStates = nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Positions = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Frequencies = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// (role, rows, inputs, bits, group, symmetric, bias, codes, alpha and bias offset)
using Tensor = std::tuple<int, int, int, int, int, bool, bool, uint64_t, uint64_t, uint64_t>;
// (path, size, sliding window or 0, tensors)
using File = std::tuple<std::string, uint64_t, int, std::vector<Tensor>>;
// (sequence, start, count, prefix)
using Segment = std::tuple<int64_t, int, int, int>;
// one value for each block: 1 where it is read at each pass
using Streamed = std::vector<uint8_t>;

// Raises (status, text) as an exception of Python's: pocketglm.engine.native turns it into its own.
void check(pglm_status status) {
    if (status == PGLM_OK) return;
    const std::string text = pglm_last_error();
    if (status == PGLM_MEMORY) {
        PyErr_SetString(PyExc_MemoryError, text.c_str());
    } else if (status == PGLM_FILE) {
        PyErr_SetString(PyExc_OSError, text.c_str());
    } else if (status == PGLM_INVALID) {
        PyErr_SetString(PyExc_ValueError, text.c_str());
    } else {
        PyErr_SetString(PyExc_RuntimeError, text.c_str());
    }
    throw nb::python_error();
}

void require(bool condition, const char* problem) {
    if (!condition) throw nb::value_error(problem);
}

struct StageDeleter {
    void operator()(pglm_stage* stage) const { pglm_stage_free(stage); }
};
struct HeadDeleter {
    void operator()(pglm_head* head) const { pglm_head_free(head); }
};

template <typename Value>
Value field(const nb::dict& fields, const char* name) {
    return nb::cast<Value>(fields[name]);
}

struct Settings {
    explicit Settings(const nb::dict& fields) : frequencies(field<Frequencies>(fields, "frequencies")) {
        spec.vocab_size = field<int>(fields, "vocab_size");
        spec.hidden_size = field<int>(fields, "hidden_size");
        spec.num_heads = field<int>(fields, "num_heads");
        spec.num_kv_heads = field<int>(fields, "num_kv_heads");
        spec.head_dim = field<int>(fields, "head_dim");
        spec.intermediate_size = field<int>(fields, "intermediate_size");
        spec.norm = field<int>(fields, "norm");
        spec.residual = field<int>(fields, "residual");
        spec.mlp = field<int>(fields, "mlp");
        spec.qk_norm = field<bool>(fields, "qk_norm");
        spec.rotary_dimensions = field<int>(fields, "rotary_dimensions");
        spec.rotary_axes = field<int>(fields, "rotary_axes");
        spec.rotary_interleaved = field<bool>(fields, "rotary_interleaved");
        spec.norm_eps = static_cast<float>(field<double>(fields, "norm_eps"));
        spec.residual_alpha = static_cast<float>(field<double>(fields, "residual_alpha"));
        const bool sized = spec.rotary_axes > 0 && spec.rotary_dimensions > 0;
        const size_t pairs = sized ? spec.rotary_dimensions / spec.rotary_axes / 2 : 0;
        require(frequencies.shape(0) == pairs, "frequencies do not fit the rotary dimensions");
        spec.frequencies = frequencies.data();
    }

    Frequencies frequencies;
    pglm_spec spec{};
};

struct Files {
    explicit Files(std::vector<File> from) : given(std::move(from)) {
        for (const auto& [path, size, window, tensors] : given) {
            std::vector<pglm_tensor> described;
            for (const Tensor& tensor : tensors) {
                const auto& [role, rows, inputs, bits, group, symmetric, bias, codes_at, alpha_at, bias_at] =
                    tensor;
                described.push_back(
                    {role, rows, inputs, bits, group, symmetric, bias, codes_at, alpha_at, bias_at});
            }
            owned.push_back(std::move(described));
            files.push_back(
                {path.c_str(), size, window, static_cast<int32_t>(owned.back().size()), owned.back().data()});
        }
    }

    std::vector<File> given;
    std::vector<std::vector<pglm_tensor>> owned;
    std::vector<pglm_file> files;
};

pglm_options options_of(int threads, int kv_type, const std::optional<std::string>& isa, uint64_t memory,
                        uint64_t reserve, const std::optional<Streamed>& streamed = std::nullopt) {
    return {threads, kv_type, isa ? isa->c_str() : nullptr,
            memory,  reserve, streamed ? streamed->data() : nullptr};
}

nb::dict usage_dict(const pglm_usage& usage) {
    nb::dict result;
    result["isa"] = usage.isa;
    result["threads"] = usage.threads;
    result["weight_bytes"] = usage.weight_bytes;
    result["cache_bytes"] = usage.cache_bytes;
    result["buffer_bytes"] = usage.buffer_bytes;
    result["streamed_bytes"] = usage.streamed_bytes;
    return result;
}

class Stage {
  public:
    Stage(const nb::dict& fields, const std::vector<File>& blocks, int threads, int kv_type,
          const std::optional<std::string>& isa, uint64_t memory, uint64_t reserve,
          const std::optional<Streamed>& streamed)
        : settings_(fields), blocks_(blocks.size()) {
        require(!streamed || streamed->size() == blocks_,
                "as many values of `streamed` as blocks are needed");
        const Files files(blocks);
        const pglm_options options = options_of(threads, kv_type, isa, memory, reserve, streamed);
        pglm_stage* stage = nullptr;
        const int32_t count = static_cast<int32_t>(files.files.size());
        check(pglm_stage_load(&settings_.spec, files.files.data(), count, &options, &stage));
        stage_.reset(stage);
    }

    void open(int64_t sequence) { check(pglm_stage_open(stage_.get(), sequence)); }
    void close(int64_t sequence) { pglm_stage_close(stage_.get(), sequence); }
    int length(int64_t sequence) const {
        int32_t length = 0;
        check(pglm_stage_length(stage_.get(), sequence, &length));
        return length;
    }
    void truncate(int64_t sequence, int length) {
        check(pglm_stage_truncate(stage_.get(), sequence, length));
    }
    void copy_prefix(int64_t source, int64_t target, int length) {
        check(pglm_stage_copy_prefix(stage_.get(), source, target, length));
    }

    void save(int64_t sequence, const OutputStates& keys, const OutputStates& values) const {
        require(fits(keys, length(sequence)) && fits(values, length(sequence)),
                "saved states have another shape");
        check(pglm_stage_save(stage_.get(), sequence, keys.data(), values.data()));
    }
    void restore(int64_t sequence, const States& keys, const States& values) {
        const size_t count = keys.shape(1);
        require(count <= INT32_MAX && fits(keys, count) && fits(values, count),
                "saved states have another shape");
        check(pglm_stage_restore(stage_.get(), sequence, static_cast<int32_t>(count), keys.data(),
                                 values.data()));
    }

    void forward(const std::vector<Segment>& segments, const Positions& positions, const FloatRows& hidden,
                 const OutputRows& output) {
        std::vector<pglm_segment> described;
        size_t rows = 0;
        for (const auto& [sequence, start, count, prefix] : segments) {
            described.push_back({sequence, start, count, prefix});
            require(count > 0, "a segment has no rows");
            rows += count;
        }
        const size_t size = settings_.spec.hidden_size, axes = settings_.spec.rotary_axes;
        require(hidden.shape(0) == rows && hidden.shape(1) == size, "hidden has another shape");
        require(output.shape(0) == rows && output.shape(1) == size, "output has another shape");
        require(positions.shape(0) == axes && positions.shape(1) == rows, "positions have another shape");
        const int32_t count = static_cast<int32_t>(described.size());
        pglm_status status;
        {
            const nb::gil_scoped_release unlocked;
            status = pglm_stage_forward(stage_.get(), described.data(), count, positions.data(),
                                        hidden.data(), output.data());
        }
        check(status);
    }

    nb::dict usage() const {
        pglm_usage usage{};
        check(pglm_stage_usage(stage_.get(), &usage));
        return usage_dict(usage);
    }

    uint64_t work_bytes(int start, int count, int prefix) {
        uint64_t bytes = 0;
        check(pglm_stage_work_bytes(stage_.get(), start, count, prefix, &bytes));
        return bytes;
    }

    std::vector<bool> streamed() const {
        Streamed read(blocks_);
        check(pglm_stage_streamed(stage_.get(), read.data()));
        return {read.begin(), read.end()};
    }

  private:
    template <typename Array>
    bool fits(const Array& array, size_t length) const {
        return array.shape(0) == blocks_ && array.shape(1) == length &&
               array.shape(2) == static_cast<size_t>(settings_.spec.num_kv_heads) &&
               array.shape(3) == static_cast<size_t>(settings_.spec.head_dim);
    }

    Settings settings_;
    size_t blocks_;
    std::unique_ptr<pglm_stage, StageDeleter> stage_;
};

using Logits = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Biases = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OutputIds = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OutputProbabilities = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

struct SamplerDeleter {
    void operator()(pglm_sampler* sampler) const { pglm_sampler_free(sampler); }
};

class Sampler {
  public:
    Sampler(double temperature, int64_t top_k, double top_p, double min_p, double repetition_penalty,
            double presence_penalty, double frequency_penalty, int vocab_size)
        : vocab_size_(vocab_size) {
        const pglm_sampling sampling{
            temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty};
        pglm_sampler* sampler = nullptr;
        check(pglm_sampler_new(&sampling, vocab_size, &sampler));
        sampler_.reset(sampler);
    }

    void see(const Ids& tokens) { check(pglm_sampler_see(sampler_.get(), tokens.data(), tokens.size())); }
    void ban(const Ids& tokens) { check(pglm_sampler_ban(sampler_.get(), tokens.data(), tokens.size())); }
    void bias(const Ids& tokens, const Biases& values) {
        require(tokens.size() == values.size(), "as many values as tokens are needed");
        check(pglm_sampler_bias(sampler_.get(), tokens.data(), values.data(), tokens.size()));
    }
    void accept(int token) { check(pglm_sampler_accept(sampler_.get(), token)); }

    int next(const Logits& logits, double uniform) {
        require(logits.size() == vocab_size_, "the logits do not fit the vocabulary");
        int32_t token = 0;
        pglm_status status;
        {
            const nb::gil_scoped_release unlocked;
            status = pglm_sampler_next(sampler_.get(), logits.data(), uniform, &token);
        }
        check(status);
        return token;
    }

    int distribution(const Logits& logits, const OutputIds& ids, const OutputProbabilities& probabilities) {
        require(
            logits.size() == vocab_size_ && ids.size() == vocab_size_ && probabilities.size() == vocab_size_,
            "an array does not fit the vocabulary");
        int32_t count = 0;
        check(pglm_sampler_distribution(sampler_.get(), logits.data(), ids.data(), probabilities.data(),
                                        &count));
        return count;
    }

    pglm_sampler* get() const { return sampler_.get(); }

  private:
    size_t vocab_size_;
    std::unique_ptr<pglm_sampler, SamplerDeleter> sampler_;
};

class Head {
  public:
    Head(const nb::dict& fields, const File& file, int threads, const std::optional<std::string>& isa,
         uint64_t memory, uint64_t reserve)
        : settings_(fields) {
        const Files files(std::vector<File>{file});
        const pglm_options options = options_of(threads, PGLM_KV_FLOAT32, isa, memory, reserve);
        pglm_head* head = nullptr;
        check(pglm_head_load(&settings_.spec, files.files.data(), &options, &head));
        head_.reset(head);
    }

    void logits(const FloatRows& hidden, const OutputRows& output) {
        const size_t rows = hidden.shape(0);
        require(rows <= INT32_MAX && hidden.shape(1) == static_cast<size_t>(settings_.spec.hidden_size),
                "hidden has another shape");
        require(output.shape(0) == rows && output.shape(1) == static_cast<size_t>(settings_.spec.vocab_size),
                "logits have another shape");
        pglm_status status;
        {
            const nb::gil_scoped_release unlocked;
            status = pglm_head_logits(head_.get(), hidden.data(), static_cast<int32_t>(rows), output.data());
        }
        check(status);
    }

    std::vector<int32_t> choose(const std::vector<const Sampler*>& samplers, const FloatRows& logits,
                                const std::vector<double>& uniforms) {
        const size_t rows = samplers.size();
        require(rows <= INT32_MAX && uniforms.size() == rows && logits.shape(0) == rows &&
                    logits.shape(1) == static_cast<size_t>(settings_.spec.vocab_size),
                "samplers, logits and uniform numbers do not belong together");
        std::vector<pglm_sampler*> each;
        for (const Sampler* sampler : samplers) each.push_back(sampler->get());
        std::vector<int32_t> tokens(rows);
        pglm_status status;
        {
            const nb::gil_scoped_release unlocked;
            status = pglm_head_choose(head_.get(), each.data(), static_cast<int32_t>(rows), logits.data(),
                                      uniforms.data(), tokens.data());
        }
        check(status);
        return tokens;
    }

    uint64_t work_bytes(int rows) const {
        uint64_t bytes = 0;
        check(pglm_head_work_bytes(head_.get(), rows, &bytes));
        return bytes;
    }

    nb::dict usage() const {
        pglm_usage usage{};
        check(pglm_head_usage(head_.get(), &usage));
        return usage_dict(usage);
    }

  private:
    Settings settings_;
    std::unique_ptr<pglm_head, HeadDeleter> head_;
};

std::vector<std::string> isa_names() {
    std::vector<std::string> names;
    for (const char* const* name = pglm_isa_names(); *name != nullptr; ++name) names.emplace_back(*name);
    return names;
}

}  // namespace

NB_MODULE(_engine, module) {
    nb::class_<Stage>(module, "Stage")
        .def(nb::init<const nb::dict&, const std::vector<File>&, int, int, const std::optional<std::string>&,
                      uint64_t, uint64_t, const std::optional<Streamed>&>(),
             nb::arg("spec"), nb::arg("blocks"), nb::arg("threads"), nb::arg("kv_type"),
             nb::arg("isa").none(), nb::arg("memory"), nb::arg("reserve") = 0,
             nb::arg("streamed").none() = nb::none())
        .def("open", &Stage::open)
        .def("close", &Stage::close)
        .def("length", &Stage::length)
        .def("truncate", &Stage::truncate)
        .def("copy_prefix", &Stage::copy_prefix)
        .def("save", &Stage::save, nb::arg("sequence"), nb::arg("keys").noconvert(),
             nb::arg("values").noconvert())
        .def("restore", &Stage::restore)
        .def("forward", &Stage::forward, nb::arg("segments"), nb::arg("positions"), nb::arg("hidden"),
             nb::arg("output").noconvert())
        .def("usage", &Stage::usage)
        .def("streamed", &Stage::streamed)
        .def("work_bytes", &Stage::work_bytes, nb::arg("start"), nb::arg("count"), nb::arg("prefix") = 0);
    nb::class_<Head>(module, "Head")
        .def(nb::init<const nb::dict&, const File&, int, const std::optional<std::string>&, uint64_t,
                      uint64_t>(),
             nb::arg("spec"), nb::arg("file"), nb::arg("threads"), nb::arg("isa").none(), nb::arg("memory"),
             nb::arg("reserve") = 0)
        .def("logits", &Head::logits, nb::arg("hidden"), nb::arg("output").noconvert())
        .def("choose", &Head::choose, nb::arg("samplers"), nb::arg("logits").noconvert(), nb::arg("uniforms"))
        .def("usage", &Head::usage)
        .def("work_bytes", &Head::work_bytes, nb::arg("rows"));
    nb::class_<Sampler>(module, "Sampler")
        .def(nb::init<double, int64_t, double, double, double, double, double, int>(), nb::arg("temperature"),
             nb::arg("top_k"), nb::arg("top_p"), nb::arg("min_p"), nb::arg("repetition_penalty"),
             nb::arg("presence_penalty"), nb::arg("frequency_penalty"), nb::arg("vocab_size"))
        .def("see", &Sampler::see)
        .def("ban", &Sampler::ban)
        .def("bias", &Sampler::bias)
        .def("accept", &Sampler::accept)
        .def("next", &Sampler::next, nb::arg("logits").noconvert(), nb::arg("uniform"))
        .def("distribution", &Sampler::distribution, nb::arg("logits").noconvert(),
             nb::arg("ids").noconvert(), nb::arg("probabilities").noconvert());
    module.def("isa_names", &isa_names);
}
