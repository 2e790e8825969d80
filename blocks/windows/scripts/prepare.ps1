# Makes the Windows that was just installed an image: what Setup's answers cannot say.
#
# Runs at the administrator's first logon, and again after every reboot that updates ask for:
# each stage notes that it is done. What it says goes to the serial console as well, each
# line marked, so that whoever builds the image sees how far it is.
$ErrorActionPreference = 'Stop'
$Folder = 'C:\fifty'
$DoneFile = Join-Path $Folder 'done.txt'
$SetupFolder = Split-Path -Parent $MyInvocation.MyCommand.Path

New-Item -ItemType Directory -Force -Path $Folder | Out-Null
if ($SetupFolder -ne $Folder) {
    Copy-Item -Path (Join-Path $SetupFolder '*') -Destination $Folder -Recurse -Force
}
$Settings = Get-Content -Raw -Path (Join-Path $Folder 'settings.json') | ConvertFrom-Json

function Write-Console([string]$Words) {
    Write-Output $Words
    try {
        $port = New-Object System.IO.Ports.SerialPort 'COM1', 115200, 'None', 8, 'One'
        $port.Open()
        $port.WriteLine("FIFTY-WINDOWS $Words")
        $port.Close()
    } catch {
        Write-Output "no serial console: $_"
    }
}

function Invoke-Program([string]$Program, [string[]]$Words) {
    $process = Start-Process -FilePath $Program -ArgumentList $Words -Wait -PassThru -NoNewWindow
    # 3010 and 1641: done, and a reboot is wanted.
    if ($process.ExitCode -notin 0, 3010, 1641) {
        throw "$Program ended with $($process.ExitCode)"
    }
}

function Find-Medium([string]$Path) {
    foreach ($drive in Get-PSDrive -PSProvider FileSystem) {
        $found = Join-Path $drive.Root $Path
        if (Test-Path -LiteralPath $found) { return $found }
    }
    return $null
}

function Install-Package([string]$Name, [bool]$Needed) {
    $package = Find-Medium "programs\$Name"
    if ($null -ne $package) {
        Invoke-Program 'msiexec.exe' @('/i', "`"$package`"", '/qn', '/norestart')
    } elseif ($Needed) {
        throw "$Name is on no medium"
    }
    return $null -ne $package
}

function Set-Registry([string]$Path, [string]$Name, $Value, [string]$Type) {
    if (-not (Test-Path $Path)) { New-Item -Path $Path -Force | Out-Null }
    New-ItemProperty -Path $Path -Name $Name -Value $Value -PropertyType $Type -Force | Out-Null
}

$Stages = [ordered]@{}

$Stages['drivers'] = {
    # Also those of devices that the installer's own machine has not got.
    $drivers = Find-Medium $Settings.drivers_folder
    if ($null -eq $drivers) { throw 'the drivers are on no medium' }
    Invoke-Program 'pnputil.exe' @('/add-driver', "`"$drivers\*.inf`"", '/subdirs', '/install')
    Install-Package 'qemu-ga-x86_64.msi' $false | Out-Null
}

$Stages['remote desktop'] = {
    Set-Registry 'HKLM:\SYSTEM\CurrentControlSet\Control\Terminal Server' 'fDenyTSConnections' 0 'DWord'
    Enable-NetFirewallRule -Group '@FirewallAPI.dll,-28752'
}

$Stages['ssh server'] = {
    if (-not (Install-Package 'openssh.msi' $false)) {
        Add-WindowsCapability -Online -Name 'OpenSSH.Server~~~~0.0.1.0' | Out-Null
    }
    Set-Service -Name sshd -StartupType Automatic
    Set-Registry 'HKLM:\SOFTWARE\OpenSSH' 'DefaultShell' "$PSHOME\powershell.exe" 'String'
    if (-not (Get-NetFirewallRule -Name 'fifty-sshd' -ErrorAction SilentlyContinue)) {
        New-NetFirewallRule -Name 'fifty-sshd' -DisplayName 'OpenSSH server' -Direction Inbound `
            -Protocol TCP -LocalPort 22 -Action Allow | Out-Null
    }
}

$Stages['network'] = {
    Get-NetConnectionProfile | Set-NetConnectionProfile -NetworkCategory Private
    Set-Registry 'HKLM:\SYSTEM\CurrentControlSet\Control\Network\NewNetworkWindowOff' 'fifty' 1 'DWord'
}

$Stages['power'] = {
    # A server that sleeps is gone; a guest that is asked to stop has to stop.
    Invoke-Program 'powercfg.exe' @('/setactive', '8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c')
    foreach ($what in 'standby-timeout-ac', 'hibernate-timeout-ac', 'monitor-timeout-ac') {
        Invoke-Program 'powercfg.exe' @('/change', $what, '0')
    }
    Invoke-Program 'powercfg.exe' @('/hibernate', 'off')
}

$Stages['serial console'] = {
    Invoke-Program 'bcdedit.exe' @('/emssettings', 'EMSPORT:1', 'EMSBAUDRATE:115200')
    Invoke-Program 'bcdedit.exe' @('/ems', '{current}', 'on')
    Invoke-Program 'bcdedit.exe' @('/bootems', '{bootmgr}', 'on')
}

$Stages['cloudbase-init'] = {
    Install-Package 'cloudbase-init.msi' $true | Out-Null
    $conf = 'C:\Program Files\Cloudbase Solutions\Cloudbase-Init\conf'
    foreach ($name in 'cloudbase-init.conf', 'cloudbase-init-unattend.conf') {
        Copy-Item -Path (Join-Path $Folder $name) -Destination $conf -Force
    }
    Set-Service -Name cloudbase-init -StartupType Automatic
}

$Stages['updates'] = {
    if (-not $Settings.updates) { return }
    if ($Settings.update_server) {
        $policy = 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate'
        Set-Registry $policy 'WUServer' $Settings.update_server 'String'
        Set-Registry $policy 'WUStatusServer' $Settings.update_server 'String'
        Set-Registry "$policy\AU" 'UseWUServer' 1 'DWord'
    }
    $session = New-Object -ComObject Microsoft.Update.Session
    $found = $session.CreateUpdateSearcher().Search("IsInstalled=0 and Type='Software' and IsHidden=0")
    if ($found.Updates.Count -eq 0) { return }
    # Some updates are offered again for ever: after some rounds the rest is left.
    $rounds = Join-Path $Folder 'rounds.txt'
    if ((Test-Path $rounds) -and @(Get-Content $rounds).Count -ge 8) { return }
    Add-Content -Path $rounds -Value (Get-Date -Format o)
    Write-Console "updates to install: $($found.Updates.Count)"
    $wanted = New-Object -ComObject Microsoft.Update.UpdateColl
    foreach ($update in $found.Updates) {
        $update.AcceptEula()
        $wanted.Add($update) | Out-Null
    }
    $downloader = $session.CreateUpdateDownloader()
    $downloader.Updates = $wanted
    $downloader.Download() | Out-Null
    $installer = $session.CreateUpdateInstaller()
    $installer.Updates = $wanted
    $result = $installer.Install()
    # 2: done; 3: done, with errors in some. What is still wanted is looked for once more.
    if ($result.ResultCode -notin 2, 3) { throw "the updates ended with $($result.ResultCode)" }
    return 'again'
}

$Stages['clean up'] = {
    Invoke-Program 'dism.exe' @('/online', '/cleanup-image', '/startcomponentcleanup', '/resetbase')
    foreach ($left in "$env:WINDIR\Temp\*", "$env:TEMP\*", "$env:WINDIR\SoftwareDistribution\Download\*") {
        Remove-Item -Path $left -Recurse -Force -ErrorAction SilentlyContinue
    }
    Clear-RecycleBin -DriveLetter C -Force -ErrorAction SilentlyContinue
}

$Stages['free space'] = {
    if (-not $Settings.zero_free) { return }
    Optimize-Volume -DriveLetter C -ReTrim
    $sdelete = Find-Medium 'programs\sdelete64.exe'
    if ($null -ne $sdelete) { Invoke-Program $sdelete @('-accepteula', '-nobanner', '-z', 'C:') }
}

$Stages['logon'] = {
    # Nobody logs in by itself any more, and no password is left in the registry or on the disk.
    $logon = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon'
    Set-ItemProperty -Path $logon -Name AutoAdminLogon -Value '0'
    foreach ($name in 'DefaultPassword', 'AutoLogonCount', 'AutoLogonSID') {
        Remove-ItemProperty -Path $logon -Name $name -ErrorAction SilentlyContinue
    }
    foreach ($left in "$env:WINDIR\Panther\unattend.xml", "$env:WINDIR\Panther\Unattend\unattend.xml",
        "$env:WINDIR\System32\Sysprep\unattend.xml") {
        Remove-Item -LiteralPath $left -Force -ErrorAction SilentlyContinue
    }
}

try {
    $done = @()
    if (Test-Path $DoneFile) { $done = @(Get-Content $DoneFile) }
    foreach ($stage in $Stages.Keys) {
        if ($stage -in $done) { continue }
        Write-Console "stage: $stage"
        $said = & $Stages[$stage]
        if ($said -contains 'again') {
            $again = "powershell -NoProfile -ExecutionPolicy Bypass -File $Folder\prepare.ps1"
            Set-Registry 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\RunOnce' 'fifty' $again 'String'
            Restart-Computer -Force
            exit 0
        }
        Add-Content -Path $DoneFile -Value $stage
    }
    Write-Console 'sealing'
    Copy-Item -Path (Join-Path $Folder 'unattend.xml') -Destination "$env:WINDIR\System32\Sysprep\fifty.xml"
    Remove-Item -LiteralPath $Folder -Recurse -Force
    Invoke-Program "$env:WINDIR\System32\Sysprep\sysprep.exe" @('/generalize', '/oobe', '/shutdown',
        '/quiet', "/unattend:$env:WINDIR\System32\Sysprep\fifty.xml")
} catch {
    Write-Console "failed: $_"
    exit 1
}
