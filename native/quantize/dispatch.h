// Which builds of the kernels this machine can run, best first.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace pocketglm::quantize {

struct NamedKernels {
    const char* name;
    const Kernels* kernels;
};

const std::vector<NamedKernels>& available();

// The build called `name`; null if this machine does not have it. An empty name stands for environment
// variable POCKETGLM_ISA, or for the best where that is not set.
const NamedKernels* find(std::string name);

}  // namespace pocketglm::quantize
