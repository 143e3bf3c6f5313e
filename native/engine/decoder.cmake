# The decoder around the matrix kernels. Its row functions and attention are compiled once for each
# width of vector registers; `decoder_math_for` picks the one that goes with the matrix kernels.

target_sources(pocketglm_engine PRIVATE decoder_math.cpp forward_pass.cpp head.cpp interface.cpp kv_cache.cpp
               mapped_file.cpp memory.cpp sampler.cpp sampler_loops.cpp stage.cpp team.cpp weight_store.cpp
               weights.cpp)

function(add_decoder_isa isa)
  add_library(decoder_${isa} OBJECT attention.cpp outliers.cpp row_functions.cpp)
  set_target_properties(decoder_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_compile_definitions(decoder_${isa} PRIVATE POCKETGLM_ISA=${isa})
  # Products and sums become one instruction.
  target_compile_options(decoder_${isa} PRIVATE ${ENGINE_OPTIMIZATION} -ffp-contract=fast -fno-math-errno
                         ${ENGINE_WARNINGS} ${ARGN})
  target_sources(pocketglm_engine PRIVATE $<TARGET_OBJECTS:decoder_${isa}>)
endfunction()

add_decoder_isa(baseline)
if(POCKETGLM_X86_64)
  set_source_files_properties(decoder_math.cpp PROPERTIES COMPILE_DEFINITIONS POCKETGLM_X86_64)
  add_decoder_isa(avx2 -mavx2 -mfma -mf16c)
  add_decoder_isa(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512)
endif()

if(POCKETGLM_PYTHON)
  nanobind_add_module(_engine STABLE_ABI NB_STATIC engine_binding.cpp)
  target_link_libraries(_engine PRIVATE pocketglm_engine Threads::Threads)
  install(TARGETS _engine LIBRARY DESTINATION pocketglm/engine/native)
endif()
