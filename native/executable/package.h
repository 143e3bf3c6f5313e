// A package directory, untrusted: everything that docs/package-format.md asks of a reader is checked.
//
// Enters: a path. Leaves: the model's settings, the weight files as the engine wants them described, and
// embedding rows, read from disk one by one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model_spec.h"
#include "pocketglm.h"

namespace pocketglm::executable {

// One weight file of a package. Its description points into it.
struct WeightFileEntry {
    std::string path;
    std::uint64_t size;
    std::int32_t window;
    std::vector<pglm_tensor> tensors;

    pglm_file description() const;
};

class Package {
  public:
    // Throws `Refusal`.
    explicit Package(const std::string& path);
    ~Package();
    Package(const Package&) = delete;
    Package& operator=(const Package&) = delete;

    const ModelSpec& spec() const { return *spec_; }
    const std::vector<WeightFileEntry>& blocks() const { return blocks_; }
    const WeightFileEntry& head() const { return head_; }
    // Embedding rows [count, hidden_size], scaled as the model wants. Ids must be of the vocabulary.
    void embed(const std::int32_t* tokens, int count, float* rows) const;

  private:
    void read_embedding_type(const Json& manifest);
    void read_files(const Json& manifest);
    void read_weights(const Json& manifest);
    WeightFileEntry read_weight_file(const std::string& name, const Json* tensors,
                                     const std::vector<ExpectedTensor>& expected) const;
    std::uint64_t listed_size(const std::string& name) const;

    std::string path_;
    std::unique_ptr<ModelSpec> spec_;
    std::map<std::string, std::uint64_t> files_;  // name -> size
    bool wide_embedding_ = false;                 // float32, else bfloat16
    std::vector<WeightFileEntry> blocks_;
    WeightFileEntry head_;
    int embedding_ = -1;  // file descriptor
};

}  // namespace pocketglm::executable
