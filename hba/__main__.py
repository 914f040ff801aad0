from hba.cli.main import main

main()
