# SPDX-License-Identifier: MIT

# lgm_compiled_host: the host's driver, compiled once for all programs of tests and benchmarks. A benchmark needs no include:
# lgm_use_compiled_host(<target>).
if(TARGET lgm_compiled_host)
  return()
endif()
add_library(lgm_compiled_host STATIC ${CMAKE_CURRENT_LIST_DIR}/instantiated_host.cpp
                                     ${CMAKE_CURRENT_LIST_DIR}/instantiated_moments.cpp)
target_link_libraries(lgm_compiled_host PUBLIC lgm::lgm)
target_include_directories(lgm_compiled_host PUBLIC ${PROJECT_SOURCE_DIR}/tests)

function(lgm_use_compiled_host target)
  target_link_libraries(${target} PRIVATE lgm_compiled_host)
  target_precompile_headers(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests/support/instantiated_host.hpp)
endfunction()
